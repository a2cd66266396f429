# VL-LTR with the tiny ViT as image tower, to compare with LIFT.
_base_ = './vlltr_tiny_twemoji-lt.py'

stages = dict(cvlp=dict(config='vlltr_tiny-vit_twemoji-lt_cvlp.py'))
model = dict(backbone=dict(model='mmlt-tiny-vit-p4'), head=dict(in_channels=64))

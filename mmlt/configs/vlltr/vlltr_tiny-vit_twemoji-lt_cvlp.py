# VL-LTR stage 1 with the tiny ViT as image tower, to compare with LIFT.
_base_ = './vlltr_tiny_twemoji-lt_cvlp.py'

stages = dict(clip=dict(config='../clip/clip_tiny-vit_named-icons.py', work_dir='work_dirs/clip_tiny-vit_named-icons'))
model = dict(
    backbone=dict(model='mmlt-tiny-vit-p4'), text=dict(model='mmlt-tiny-vit-p4'), teacher=dict(model='mmlt-tiny-vit-p4')
)

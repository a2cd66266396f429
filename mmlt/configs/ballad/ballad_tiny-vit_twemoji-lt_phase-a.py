# BALLAD phase A with the tiny ViT as image tower, to compare with LIFT.
_base_ = './ballad_tiny_twemoji-lt_phase-a.py'

stages = dict(clip=dict(config='../clip/clip_tiny-vit_named-icons.py', work_dir='work_dirs/clip_tiny-vit_named-icons'))
model = dict(backbone=dict(model='mmlt-tiny-vit-p4'), head=dict(text=dict(model='mmlt-tiny-vit-p4')))

# BALLAD with the tiny ViT as image tower, to compare with LIFT.
_base_ = './ballad_tiny_twemoji-lt.py'

stages = dict(phase_a=dict(config='ballad_tiny-vit_twemoji-lt_phase-a.py'))
model = dict(
    backbone=dict(model='mmlt-tiny-vit-p4'), neck=dict(in_channels=64), head=dict(text=dict(model='mmlt-tiny-vit-p4'))
)

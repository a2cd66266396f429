# LIFT on Twemoji-LT with the tiny ViT.
_base_ = [
    '../_base_/models/lift_clip_tiny-vit_icons.py',
    '../_base_/datasets/twemoji-lt.py',
    '../_base_/schedules/lift_tiny.py',
    '../_base_/default_runtime.py',
]

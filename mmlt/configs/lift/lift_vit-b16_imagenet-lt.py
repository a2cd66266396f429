# LIFT on ImageNet-LT with CLIP's ViT-B/16.
_base_ = [
    '../_base_/models/lift_clip_vit-b16.py',
    '../_base_/datasets/imagenet-lt_lift.py',
    '../_base_/schedules/lift.py',
    '../_base_/default_runtime.py',
]

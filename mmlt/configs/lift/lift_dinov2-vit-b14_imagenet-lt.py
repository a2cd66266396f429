# LIFT on ImageNet-LT with DINOv2's ViT-B/14; no run of the paper.
_base_ = [
    '../_base_/models/lift_dinov2_vit-b14.py',
    '../_base_/datasets/imagenet-lt_lift.py',
    '../_base_/schedules/lift.py',
    '../_base_/class-means_runtime.py',
]

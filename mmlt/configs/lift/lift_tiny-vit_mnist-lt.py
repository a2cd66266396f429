# LIFT on MNIST-LT with the tiny ViT.
_base_ = [
    '../_base_/models/lift_clip_tiny-vit.py',
    '../_base_/datasets/mnist-lt.py',
    '../_base_/schedules/lift_tiny.py',
    '../_base_/default_runtime.py',
]

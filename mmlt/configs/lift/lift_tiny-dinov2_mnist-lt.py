# LIFT on MNIST-LT with a small ViT of DINOv2's form and random weights.
_base_ = [
    '../_base_/models/lift_dinov2_tiny-vit.py',
    '../_base_/datasets/mnist-lt.py',
    '../_base_/schedules/lift_tiny.py',
    '../_base_/class-means_runtime.py',
]

# LIFT on CIFAR-100-LT with CLIP's ViT-B/16.
_base_ = [
    '../_base_/models/lift_clip_vit-b16.py',
    '../_base_/datasets/cifar100-lt_lift.py',
    '../_base_/schedules/lift.py',
    '../_base_/default_runtime.py',
]

model = dict(backbone=dict(adapter=dict(num_classes=100)), head=dict(num_classes=100))

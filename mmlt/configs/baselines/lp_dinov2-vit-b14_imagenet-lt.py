# Linear probe on ImageNet-LT: a linear classifier on the class token and the mean of the patches of DINOv2's frozen
# ViT-B/14, under the loss and the schedule of LIFT. All random views are encoded once, before the training.
_base_ = [
    '../_base_/models/lift_dinov2_vit-b14.py',
    '../_base_/datasets/imagenet-lt_lift.py',
    '../_base_/schedules/lift.py',
    '../_base_/default_runtime.py',
]

model = dict(
    backbone=dict(frozen=True, adapter=None, pooling='cls+avg'),
    head=dict(
        _delete_=True,
        type='LinearClsHead',
        num_classes=1000,
        in_channels=1536,
        loss=dict(type='mmlt.LogitAdjustedLoss')))
default_hooks = dict(feature_cache=dict(type='mmlt.FeatureCacheHook', views='epochs'))

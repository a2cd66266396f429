# LT-Soups, stage 1, on ImageNet-LT: all of CLIP's ViT-B/16 on a subset of limited imbalance.
# lt-soups_vit-b16_imagenet-lt.py trains models with the imbalances 1, 2, 4, ...
_base_ = [
    '../_base_/models/lift_clip_vit-b16.py',
    '../_base_/datasets/imagenet-lt_lift.py',
    '../_base_/schedules/lt-soups.py',
    '../_base_/default_runtime.py',
]

model = dict(backbone=dict(adapter=None))
train_dataloader = dict(drop_last=False, dataset=dict(max_imbalance=1, subset_seed=0))
train_cfg = dict(val_interval=2)
default_hooks = dict(checkpoint=dict(save_best='shot/all'))

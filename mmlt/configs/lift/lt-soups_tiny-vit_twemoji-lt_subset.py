# LT-Soups, stage 1, on Twemoji-LT: all of the tiny ViT on a subset of limited imbalance.
# lt-soups_tiny-vit_twemoji-lt.py trains models with the imbalances 1, 2, 4, ...
_base_ = [
    '../_base_/models/lift_clip_tiny-vit_icons.py',
    '../_base_/datasets/twemoji-lt.py',
    '../_base_/schedules/lt-soups_tiny.py',
    '../_base_/default_runtime.py',
]

model = dict(backbone=dict(adapter=None))
train_dataloader = dict(drop_last=False, dataset=dict(max_imbalance=1, subset_seed=0))

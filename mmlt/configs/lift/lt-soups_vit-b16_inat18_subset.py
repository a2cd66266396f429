# LT-Soups, stage 1, on iNaturalist 2018: all of CLIP's ViT-B/16 on a subset of limited imbalance.
# lt-soups_vit-b16_inat18.py trains models with the imbalances 1, 2, 4, ...
_base_ = [
    '../_base_/models/lift_clip_vit-b16.py',
    '../_base_/datasets/inat18_lift.py',
    '../_base_/schedules/lt-soups.py',
    '../_base_/default_runtime.py',
]

model = dict(backbone=dict(adapter=None), head=dict(num_classes=8142))
# Its validation pictures are those of the test, so the last averaged weights are kept, not the best.
train_dataloader = dict(drop_last=False, dataset=dict(max_imbalance=1, subset_seed=0))

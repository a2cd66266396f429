# LT-Soups on iNaturalist 2018 with CLIP's ViT-B/16: a model on a subset of each imbalance from 1 to 256; they are
# merged, with the shares of the published script for this data set, and the class vectors are trained on all pictures.
_base_ = './lt-soups_vit-b16_inat18_subset.py'

stages = {
    f'imbalance_{2**i}': dict(
        config='lt-soups_vit-b16_inat18_subset.py',
        options=dict(train_dataloader=dict(dataset=dict(max_imbalance=2**i, subset_seed=i))))
    for i in range(9)
}
model = dict(backbone=dict(frozen=True))
train_dataloader = dict(drop_last=True, dataset=dict(max_imbalance=None))
default_hooks = dict(
    soup=dict(type='mmlt.SoupHook', ratio=0.3, groups=[[f'{{stage:imbalance_{2**i}}}'] for i in range(9)]))

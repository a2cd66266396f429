# LT-Soups on ImageNet-LT with CLIP's ViT-B/16: two models on subsets of each imbalance from 1 to 128, one on the whole
# list, whose imbalance is 256; they are merged, and the class vectors are trained on all pictures.
_base_ = './lt-soups_vit-b16_imagenet-lt_subset.py'

stages = {
    f'imbalance_{2**i}_{branch}': dict(
        config='lt-soups_vit-b16_imagenet-lt_subset.py',
        options=dict(train_dataloader=dict(dataset=dict(max_imbalance=2**i, subset_seed=2 * i + branch))))
    for i in range(9) for branch in range(2 if i < 8 else 1)
}
model = dict(backbone=dict(frozen=True))
train_dataloader = dict(drop_last=True, dataset=dict(max_imbalance=None))
default_hooks = dict(
    soup=dict(
        type='mmlt.SoupHook',
        ratio=0.7,
        groups=[
            [f'{{stage:imbalance_{2**i}_{branch}}}' for branch in range(2 if i < 8 else 1)] for i in range(9)
        ]))

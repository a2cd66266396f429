# LT-Soups on Twemoji-LT with the tiny ViT: a model on a subset of each imbalance from 1 to 128; they are merged, and
# the class vectors are trained on all emoji.
_base_ = './lt-soups_tiny-vit_twemoji-lt_subset.py'

stages = {
    f'imbalance_{2**i}': dict(
        config='lt-soups_tiny-vit_twemoji-lt_subset.py',
        options=dict(
            train_dataloader=dict(dataset=dict(max_imbalance=2**i, subset_seed=i)),
            train_cfg=dict(max_epochs=20 if i < 4 else 10)))
    for i in range(8)
}
model = dict(backbone=dict(frozen=True))
max_epochs = 10
train_cfg = dict(max_epochs=max_epochs)
train_dataloader = dict(drop_last=True, dataset=dict(max_imbalance=None))
default_hooks = dict(
    soup=dict(type='mmlt.SoupHook', ratio=0.7, groups=[[f'{{stage:imbalance_{2**i}}}'] for i in range(8)]))

# LT-Soups, stage 1, on MNIST-LT: all of the tiny ViT on a subset of limited imbalance.
# lt-soups_tiny-vit_mnist-lt.py trains models with the imbalances 1, 2, 4, ...
_base_ = [
    '../_base_/models/lift_clip_tiny-vit.py',
    '../_base_/datasets/mnist-lt.py',
    '../_base_/schedules/tiny.py',
    '../_base_/default_runtime.py',
]

model = dict(backbone=dict(adapter=None))
train_dataloader = dict(drop_last=False, dataset=dict(max_imbalance=1, subset_seed=0))
train_cfg = dict(val_interval=20)
optim_wrapper = dict(optimizer=dict(lr=2e-3))
# Some subsets are two batches long, so the average is of fewer steps than in the benchmark configs (momentum 0.01).
custom_hooks = [dict(type='EMAHook', momentum=0.1, update_buffers=True)]

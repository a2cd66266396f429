# LT-Soups for the tiny models: as tiny.py, at a larger rate, with averaged weights.
_base_ = './tiny.py'

train_cfg = dict(val_interval=20)
optim_wrapper = dict(optimizer=dict(lr=2e-3))
# Some subsets are two batches long, so the average is of fewer steps than in the benchmark configs (momentum 0.01).
custom_hooks = [dict(type='EMAHook', momentum=0.1, update_buffers=True)]

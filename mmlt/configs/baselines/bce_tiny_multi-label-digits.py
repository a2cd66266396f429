# Binary cross-entropy on the multi-label digits.
_base_ = [
    '../_base_/models/resnet18-tiny_multi-label.py',
    '../_base_/datasets/multi-label-digits.py',
    '../_base_/schedules/tiny.py',
    '../_base_/default_runtime.py',
]

max_epochs = 40
train_cfg = dict(max_epochs=max_epochs, val_interval=10)
optim_wrapper = dict(optimizer=dict(lr=2e-3))

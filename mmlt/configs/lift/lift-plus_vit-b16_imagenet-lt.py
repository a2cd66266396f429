# LIFT+ on ImageNet-LT: half the epochs, twice the learning rate, square crops whose smallest size grows.
_base_ = [
    '../_base_/models/lift_clip_vit-b16.py',
    '../_base_/datasets/imagenet-lt_lift-plus.py',
    '../_base_/schedules/lift.py',
    '../_base_/default_runtime.py',
]

max_epochs = 5
train_cfg = dict(max_epochs=max_epochs, val_interval=max_epochs)
optim_wrapper = dict(optimizer=dict(lr=0.02))

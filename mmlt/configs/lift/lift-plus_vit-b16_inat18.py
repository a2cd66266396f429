# LIFT+ on iNaturalist 2018: 15 epochs, twice the learning rate, square crops whose smallest size grows.
_base_ = [
    '../_base_/models/lift_clip_vit-b16.py',
    '../_base_/datasets/inat18_lift-plus.py',
    '../_base_/schedules/lift.py',
    '../_base_/default_runtime.py',
]

model = dict(backbone=dict(adapter=dict(num_classes=8142)), head=dict(num_classes=8142))
max_epochs = 15
train_cfg = dict(max_epochs=max_epochs, val_interval=max_epochs)
optim_wrapper = dict(optimizer=dict(lr=0.02))

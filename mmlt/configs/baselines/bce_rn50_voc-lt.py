# Binary cross-entropy on VOC-LT, images as they come; as many draws as the class-aware epochs of DB have.
# Not run by us: the data were not at hand.
_base_ = [
    '../_base_/models/resnet50_multi-label.py',
    '../_base_/datasets/voc-lt.py',
    '../_base_/schedules/multi-label_sgd.py',
    '../_base_/default_runtime.py',
]

max_epochs = 27
train_cfg = dict(max_epochs=max_epochs, val_interval=max_epochs)
param_scheduler = [
    dict(type='LinearLR', start_factor=1 / 3, by_epoch=False, end=500),
    dict(type='MultiStepLR', milestones=[17, 24], by_epoch=True),
]

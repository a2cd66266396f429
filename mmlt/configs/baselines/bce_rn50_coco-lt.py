# Binary cross-entropy on COCO-LT, images as they come; as many draws as the class-aware epochs of DB have.
# Not run by us: the data were not at hand.
_base_ = [
    '../_base_/models/resnet50_multi-label.py',
    '../_base_/datasets/coco-lt.py',
    '../_base_/schedules/multi-label_sgd.py',
    '../_base_/default_runtime.py',
]

model = dict(head=dict(num_classes=80, loss=dict(loss_weight=1 / 80)))
max_epochs = 95
train_cfg = dict(max_epochs=max_epochs, val_interval=max_epochs)
param_scheduler = [
    dict(type='LinearLR', start_factor=1 / 3, by_epoch=False, end=500),
    dict(type='MultiStepLR', milestones=[59, 83], by_epoch=True),
]

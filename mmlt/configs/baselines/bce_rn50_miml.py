# Binary cross-entropy on MIML. Not run by us: the data were not at hand.
_base_ = [
    '../_base_/models/resnet50_multi-label.py',
    '../_base_/datasets/miml.py',
    '../_base_/schedules/multi-label_sgd.py',
    '../_base_/default_runtime.py',
]

model = dict(head=dict(num_classes=5, loss=dict(loss_weight=1 / 5)))
# An epoch, which has at most 62 iterations.
param_scheduler = [
    dict(type='LinearLR', start_factor=1 / 3, by_epoch=True, end=1, convert_to_iter_based=True),
    dict(type='MultiStepLR', milestones=[5, 7], by_epoch=True),
]

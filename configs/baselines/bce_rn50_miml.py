# Binary cross-entropy on MIML. Not run by us: the data were not at hand.
_base_ = [
    '../_base_/models/resnet50_multi-label.py',
    '../_base_/datasets/miml.py',
    '../_base_/schedules/multi-label_sgd.py',
    '../_base_/default_runtime.py',
]

model = dict(head=dict(num_classes=5, loss=dict(loss_weight=1 / 5)))

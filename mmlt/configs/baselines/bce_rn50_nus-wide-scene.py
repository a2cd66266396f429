# Binary cross-entropy on NUS-WIDE-SCENE. Not run by us: the data were not at hand.
_base_ = [
    '../_base_/models/resnet50_multi-label.py',
    '../_base_/datasets/nus-wide-scene.py',
    '../_base_/schedules/multi-label_sgd.py',
    '../_base_/default_runtime.py',
]

model = dict(head=dict(num_classes=33, loss=dict(loss_weight=1 / 33)))

# VL-LTR stage 1 on MNIST-LT: class-wise pretraining with the sentences about every digit, then anchor selection.
_base_ = [
    '../_base_/models/cvlp_clip_tiny.py',
    '../_base_/datasets/mnist-lt.py',
    '../_base_/schedules/tiny.py',
    '../_base_/default_runtime.py',
]

train_dataloader = dict(sampler=dict(_delete_=True, type='mmlt.SquareRootSampler'))
default_hooks = dict(anchors=dict(type='mmlt.AnchorSelectionHook', num_anchors=16))

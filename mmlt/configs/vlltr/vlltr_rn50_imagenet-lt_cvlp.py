# VL-LTR stage 1: both towers are pretrained with the sentences about every class, then anchors are selected.
_base_ = [
    '../_base_/models/cvlp_clip_rn50.py',
    '../_base_/datasets/imagenet-lt_vlltr.py',
    '../_base_/schedules/vlltr_cvlp.py',
    '../_base_/default_runtime.py',
]

train_dataloader = dict(batch_size=256)
default_hooks = dict(anchors=dict(type='mmlt.AnchorSelectionHook', num_anchors=64))

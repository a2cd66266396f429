# VL-LTR stage 1 as the paper's text has it: class-wise pretraining of both towers, then anchors are selected.
_base_ = [
    '../_base_/models/cvlp_clip_vit-b16_paper.py',
    '../_base_/datasets/imagenet-lt_vlltr.py',
    '../_base_/schedules/vlltr_cvlp_paper.py',
    '../_base_/default_runtime.py',
]

train_dataloader = dict(batch_size=256)
default_hooks = dict(anchors=dict(type='mmlt.AnchorSelectionHook', num_anchors=64))

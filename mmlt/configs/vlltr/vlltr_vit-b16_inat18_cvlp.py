# VL-LTR stage 1: both towers are pretrained with the sentences about every class, then anchors are selected.
_base_ = [
    '../_base_/models/cvlp_clip_vit-b16.py',
    '../_base_/datasets/inat18_vlltr.py',
    '../_base_/schedules/vlltr_cvlp_inat18.py',
    '../_base_/default_runtime.py',
]

model = dict(backbone=dict(norm_eval=False))  # train mode, on iNaturalist only
train_dataloader = dict(batch_size=128)
optim_wrapper = dict(optimizer=dict(lr=3.5e-4))
auto_scale_lr = dict(base_batch_size=1024)
default_hooks = dict(anchors=dict(type='mmlt.AnchorSelectionHook', num_anchors=64))

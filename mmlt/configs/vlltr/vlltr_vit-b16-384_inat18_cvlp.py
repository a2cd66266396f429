# VL-LTR stage 1 at 384 px: CLIP's position embeddings are resized, the teacher's too.
_base_ = [
    '../_base_/models/cvlp_clip_vit-b16.py',
    '../_base_/datasets/inat18_vlltr_384px.py',
    '../_base_/schedules/vlltr_cvlp_inat18.py',
    '../_base_/default_runtime.py',
]

model = dict(backbone=dict(image_size=384, norm_eval=False), teacher=dict(image_size=384))
train_dataloader = dict(batch_size=128)
optim_wrapper = dict(optimizer=dict(lr=3.5e-4))
auto_scale_lr = dict(base_batch_size=1024)
default_hooks = dict(anchors=dict(type='mmlt.AnchorSelectionHook', num_anchors=64))

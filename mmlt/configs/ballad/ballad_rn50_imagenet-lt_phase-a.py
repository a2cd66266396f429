# BALLAD phase A: both towers are fine-tuned on the long-tailed data as it comes.
_base_ = [
    '../_base_/models/clip_rn50.py',
    '../_base_/datasets/imagenet-lt.py',
    '../_base_/schedules/ballad_phase-a.py',
    '../_base_/default_runtime.py',
]

model = dict(backbone=dict(norm_eval=True))  # published: CLIP's towers stay in eval mode
default_hooks = dict(checkpoint=dict(save_best='shot/all', rule='greater'))

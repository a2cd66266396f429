# BALLAD phase A: both towers are fine-tuned on the long-tailed data as it comes.
_base_ = [
    '../_base_/models/clip_vit-b16.py',
    '../_base_/datasets/places-lt.py',
    '../_base_/schedules/ballad_phase-a.py',
    '../_base_/default_runtime.py',
]

default_hooks = dict(checkpoint=dict(save_best='shot/all', rule='greater'))

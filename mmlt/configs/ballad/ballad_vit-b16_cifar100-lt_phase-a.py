# BALLAD phase A: both towers are fine-tuned on the long-tailed data as it comes.
_base_ = [
    '../_base_/models/clip_vit-b16.py',
    '../_base_/datasets/cifar100-lt.py',
    '../_base_/schedules/ballad_phase-a.py',
    '../_base_/default_runtime.py',
]

# There is no validation split, and the test split chooses no checkpoint: the last one is kept.

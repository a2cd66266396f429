# BALLAD phase A: both towers are fine-tuned on the long-tailed data as it comes.
_base_ = [
    '../_base_/models/clip_tiny_icons.py',
    '../_base_/datasets/twemoji-lt.py',
    '../_base_/schedules/tiny.py',
    '../_base_/default_runtime.py',
]

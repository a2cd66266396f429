# Cross entropy on Twemoji-LT: a linear classifier on the tiny CLIP's image tower, both trained.
_base_ = [
    '../_base_/models/clip_tiny_icons.py',
    '../_base_/datasets/twemoji-lt.py',
    '../_base_/schedules/tiny.py',
    '../_base_/default_runtime.py',
]

model = dict(head=dict(_delete_=True, type='LinearClsHead', num_classes=42, in_channels=128))
optim_wrapper = dict(optimizer=dict(lr=1e-3))

# VL-LTR stage 2 as in lgr_clip_tiny.py, for the 42 kinds of emoji.
_base_ = './lgr_clip_tiny.py'

model = dict(head=dict(num_classes=42), data_preprocessor=dict(mean=[180] * 3, std=[80] * 3))

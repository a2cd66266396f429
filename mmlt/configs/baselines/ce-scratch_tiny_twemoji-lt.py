# Cross entropy on Twemoji-LT from random weights.
_base_ = './ce_tiny_twemoji-lt.py'

stages = None
# BatchNorm learns its statistics here: those of random weights mean nothing.
model = dict(backbone=dict(pretrained=None, norm_eval=False))

# BALLAD phase B: the towers of phase A frozen, a balanced linear adapter on the image features.
# The weights of both towers are in phase A's checkpoint, which the config's `stages` names.
_base_ = './clip_tiny.py'

model = dict(
    backbone=dict(pretrained=None, frozen=True),
    neck=dict(type='mmlt.BalancedLinearAdapter', in_channels=128, residual_ratio=0.2),
    head=dict(text=dict(pretrained=None, frozen=True)),
)

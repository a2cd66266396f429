# BALLAD phase B: the towers of phase A frozen, the published linear adapter on the image
# features, without the ReLU and bias of the paper's Eq. 5.
# The weights of both towers are in phase A's checkpoint, which the config's `stages` names.
_base_ = './clip_rn50x16.py'

model = dict(
    backbone=dict(pretrained=None, norm_eval=True, frozen=True),
    neck=dict(type='mmlt.BalancedLinearAdapter', in_channels=768, residual_ratio=0.2, relu=False, bias=False),
    head=dict(text=dict(pretrained=None, frozen=True)),
)

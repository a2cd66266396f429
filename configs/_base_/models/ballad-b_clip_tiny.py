# BALLAD phase B: the towers of phase A frozen, a balanced linear adapter trained on the image features.
_base_ = './clip_tiny.py'

stages = dict(_delete_=True, phase_a=dict(config='ballad_tiny_mnist-lt_phase-a.py', load_from=True))

model = dict(
    backbone=dict(pretrained=None, frozen=True),
    neck=dict(type='mmlt.BalancedLinearAdapter', in_channels=128, ratio=0.2),
    head=dict(text=dict(pretrained=None, frozen=True)))

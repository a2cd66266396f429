# Logit-adjusted cross entropy with the tiny ViT as image tower, to compare with LIFT.
_base_ = './ce_tiny-vit_twemoji-lt.py'

model = dict(head=dict(loss=dict(type='mmlt.LogitAdjustedLoss', tau=1.0)))

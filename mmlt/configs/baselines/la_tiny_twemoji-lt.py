# Logit-adjusted cross entropy (Menon et al. 2021) on Twemoji-LT.
_base_ = './ce_tiny_twemoji-lt.py'

model = dict(head=dict(loss=dict(type='mmlt.LogitAdjustedLoss', tau=1.0)))

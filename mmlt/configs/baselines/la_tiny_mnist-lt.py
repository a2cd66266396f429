# Logit-adjusted cross entropy (Menon et al. 2021) on MNIST-LT.
_base_ = './ce_tiny_mnist-lt.py'

model = dict(head=dict(loss=dict(type='mmlt.LogitAdjustedLoss', tau=1.0)))

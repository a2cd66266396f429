# Balanced softmax (Ren et al. 2020) on Twemoji-LT.
_base_ = './ce_tiny_twemoji-lt.py'

model = dict(head=dict(loss=dict(type='mmlt.BalancedSoftmaxLoss')))

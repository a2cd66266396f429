# Balanced softmax (Ren et al. 2020) on MNIST-LT.
_base_ = './ce_tiny_mnist-lt.py'

model = dict(head=dict(loss=dict(type='mmlt.BalancedSoftmaxLoss')))

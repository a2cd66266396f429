# The matched control of MORE: the same split weights, no penalty.
_base_ = ['./more_resnet32_cifar10-lt_low-rate.py']

model = dict(peak=0.0)

# The matched control of MORE: the same split weights, no penalty.
_base_ = ['./more-vlltr_tiny_mnist-lt.py']

model = dict(peak=0.0)

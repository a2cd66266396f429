# The FC head of VL-LTR's Table 4 on MNIST-LT: a linear classifier on the image tower of stage 1, both trained.
_base_ = './vlltr_tiny_mnist-lt.py'

stages = dict(cvlp=dict(load_from='backbone'))
model = dict(head=dict(_delete_=True, type='LinearClsHead', num_classes=10, in_channels=128))

# Cross entropy on CIFAR-10-LT with a ResNet-32 from random weights.
_base_ = [
    '../_base_/models/resnet32_cifar.py',
    '../_base_/datasets/cifar10-lt_32px.py',
    '../_base_/schedules/cifar-lt.py',
    '../_base_/default_runtime.py',
]

model = dict(head=dict(num_classes=10))

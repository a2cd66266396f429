# LIFT on CIFAR-100-LT with an imbalance of 10; the shots follow from its own counts.
_base_ = './lift_vit-b16_cifar100-lt.py'

train_dataloader = dict(dataset=dict(imbalance_ratio=10))
val_dataloader = dict(dataset=dict(imbalance_ratio=10))
test_dataloader = dict(dataset=dict(imbalance_ratio=10))

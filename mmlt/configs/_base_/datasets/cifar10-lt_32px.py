# CIFAR-10-LT at its own size, for networks that are trained from scratch.
_base_ = './cifar100-lt_32px.py'

dataset_type = 'mmlt.CIFAR10LT'
data_root = 'data/cifar10'

train_dataloader = dict(dataset=dict(type=dataset_type, data_root=data_root))
val_dataloader = dict(dataset=dict(type=dataset_type, data_root=data_root))
test_dataloader = val_dataloader

# CIFAR-10-LT: 12,406 training images, 5,000 down to 50 a class; 10,000 to test.
_base_ = './cifar100-lt.py'

dataset_type = 'mmlt.CIFAR10LT'
data_root = 'data/cifar10'

train_dataloader = dict(dataset=dict(type=dataset_type, data_root=data_root))
val_dataloader = dict(dataset=dict(type=dataset_type, data_root=data_root))
test_dataloader = val_dataloader

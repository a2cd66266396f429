# CIFAR-100-LT at 384 px, the input size of CLIP's RN50x16.
_base_ = './cifar100-lt.py'

train_pipeline = _base_.train_pipeline
train_pipeline[2].scale = 384
test_pipeline = _base_.test_pipeline
test_pipeline[2].scale = 384

train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader

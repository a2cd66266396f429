# CIFAR-100-LT at its own size, for networks that are trained from scratch.
_base_ = './cifar100-lt.py'

train_pipeline = [
    *_base_.rgb_to_bgr,
    dict(type='RandomCrop', crop_size=32, padding=4),
    dict(type='RandomFlip', prob=0.5, direction='horizontal'),
    dict(type='PackInputs'),
]
test_pipeline = [*_base_.rgb_to_bgr, dict(type='PackInputs')]

train_dataloader = dict(batch_size=128, dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader

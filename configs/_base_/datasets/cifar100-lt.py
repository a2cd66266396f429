# CIFAR-100-LT: 10,847 training images, 500 down to 5 a class; 10,000 to test.
# The pictures of 32 px are enlarged to what CLIP takes.
dataset_type = 'mmlt.CIFAR100LT'
data_root = 'data/cifar100'
imbalance_ratio = 100

# MMPretrain's CIFAR is RGB; transforms and preprocessor expect BGR, as from a file.
train_pipeline = [
    dict(type='NumpyToPIL', to_rgb=False),
    dict(type='PILToNumpy', to_bgr=True),
    dict(
        type='RandomResizedCrop',
        scale=224,
        crop_ratio_range=(0.5, 1.0),
        backend='pillow',
        interpolation='bicubic'),
    dict(type='RandomFlip', prob=0.5, direction='horizontal'),
    dict(type='ColorJitter', brightness=0.4, contrast=0.4, saturation=0.4),
    dict(type='PackInputs'),
]
test_pipeline = [
    dict(type='NumpyToPIL', to_rgb=False),
    dict(type='PILToNumpy', to_bgr=True),
    dict(type='ResizeEdge', scale=224, edge='short', backend='pillow', interpolation='bicubic'),
    dict(type='PackInputs'),
]

train_dataloader = dict(
    batch_size=64,
    num_workers=8,
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        split='train',
        imbalance_ratio=imbalance_ratio,
        pipeline=train_pipeline),
    sampler=dict(type='DefaultSampler', shuffle=True),
    drop_last=True)
val_dataloader = dict(
    batch_size=128,
    num_workers=8,
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        split='test',
        imbalance_ratio=imbalance_ratio,
        pipeline=test_pipeline),
    sampler=dict(type='DefaultSampler', shuffle=False))
val_evaluator = [dict(type='mmlt.ShotAccuracy')]
test_dataloader = val_dataloader
test_evaluator = val_evaluator

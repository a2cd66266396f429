# CIFAR-100-LT: 10,847 training images, 500 down to 5 a class; 10,000 to test.
# The pictures of 32 px are enlarged to what CLIP takes.
_base_ = './clip_pictures.py'

dataset_type = 'mmlt.CIFAR100LT'
data_root = 'data/cifar100'
imbalance_ratio = 100

# MMPretrain's CIFAR is RGB; transforms and preprocessor expect BGR, as from a file.
rgb_to_bgr = [dict(type='NumpyToPIL', to_rgb=False), dict(type='PILToNumpy', to_bgr=True)]
train_pipeline = [*rgb_to_bgr, *_base_.train_pipeline[1:]]  # all but the loading of a file
test_pipeline = [
    *rgb_to_bgr,
    dict(type='ResizeEdge', scale=224, edge='short', backend='pillow', interpolation='bicubic'),
    dict(type='PackInputs'),
]

train_dataloader = dict(
    dataset=dict(
        type=dataset_type, data_root=data_root, split='train', imbalance_ratio=imbalance_ratio, pipeline=train_pipeline
    )
)
val_dataloader = dict(
    dataset=dict(
        type=dataset_type, data_root=data_root, split='test', imbalance_ratio=imbalance_ratio, pipeline=test_pipeline
    )
)
test_dataloader = val_dataloader

# CIFAR-100-LT with the transforms of LIFT+, bicubic: square crops whose smallest size grows, no flips.
_base_ = './cifar100-lt_lift.py'

train_pipeline = [
    *_base_.rgb_to_bgr,
    dict(
        type='mmlt.GrowingRandomResizedCrop',
        scale=224,
        start=0.08,
        square=True,
        backend='pillow',
        interpolation='bicubic'),
    dict(type='PackInputs'),
]
test_pipeline = _base_.test_pipeline
test_pipeline[2].interpolation = 'bicubic'
tta_pipeline = _base_.tta_pipeline
tta_pipeline[2].interpolation = 'bicubic'

train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader

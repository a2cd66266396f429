# iNaturalist 2018 with the transforms of LIFT+, bicubic: square crops whose smallest size grows, no flips.
_base_ = './inat18_lift.py'

train_pipeline = [
    _base_.lift_train_pipeline[0],
    dict(
        type='mmlt.GrowingRandomResizedCrop',
        scale=224,
        start=0.08,
        square=True,
        backend='pillow',
        interpolation='bicubic'),
    dict(type='PackInputs'),
]
test_pipeline = _base_.lift_test_pipeline
test_pipeline[1].interpolation = 'bicubic'
tta_pipeline = _base_.tta_pipeline
tta_pipeline[1].interpolation = 'bicubic'

train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = dict(dataset=dict(pipeline=test_pipeline))

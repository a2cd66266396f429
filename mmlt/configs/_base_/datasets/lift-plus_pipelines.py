# LIFT+'s transforms as published, bicubic: square crops whose smallest size grows, no flips.
_base_ = './lift_pipelines.py'

lift_train_pipeline = [
    _base_.lift_train_pipeline[0],
    dict(
        type='mmlt.GrowingRandomResizedCrop',
        scale=224,
        start=0.08,
        square=True,
        backend='pillow',
        interpolation='bicubic',
    ),
    dict(type='PackInputs'),
]
lift_test_pipeline = _base_.lift_test_pipeline
lift_test_pipeline[1].interpolation = 'bicubic'
tta_pipeline = _base_.tta_pipeline
tta_pipeline[1].interpolation = 'bicubic'

# LIFT's transforms as published, bilinear: crops and flips to train; to test the centre, or the five crops of --tta.
lift_train_pipeline = [
    dict(type='mmlt.LoadPicture'),
    dict(
        type='mmlt.RandomResizedCrop',
        scale=224,
        crop_ratio_range=(0.08, 1.0),
        backend='pillow',
        interpolation='bilinear',
    ),
    dict(type='mmlt.RandomFlip', prob=0.5, direction='horizontal'),
    dict(type='PackInputs'),
]
lift_test_pipeline = [
    dict(type='mmlt.LoadPicture'),
    dict(type='ResizeEdge', scale=256, edge='short', backend='pillow', interpolation='bilinear'),
    dict(type='CenterCrop', crop_size=224),
    dict(type='PackInputs'),
]

tta_model = dict(type='mmlt.LogitTTA')
tta_pipeline = [
    dict(type='mmlt.LoadPicture'),
    dict(type='ResizeEdge', scale=248, edge='short', backend='pillow', interpolation='bilinear'),
    dict(
        type='TestTimeAug',
        transforms=[
            [
                dict(type='mmlt.FiveCropPart', crop_size=224, position='top-left'),
                dict(type='mmlt.FiveCropPart', crop_size=224, position='top-right'),
                dict(type='mmlt.FiveCropPart', crop_size=224, position='bottom-left'),
                dict(type='mmlt.FiveCropPart', crop_size=224, position='bottom-right'),
                dict(type='mmlt.FiveCropPart', crop_size=224, position='centre'),
            ],
            [dict(type='PackInputs')],
        ],
    ),
]

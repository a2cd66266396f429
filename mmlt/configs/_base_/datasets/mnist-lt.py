# MNIST-LT: 988 training digits, 400 down to 4 a class; 1,000 test digits.
dataset_type = 'mmlt.MNISTLT'
imbalance_ratio = 100

train_pipeline = [
    dict(type='NumpyToPIL', to_rgb=False),
    dict(type='torchvision/RandomAffine', degrees=9, translate=(0.07, 0.07), scale=(0.92, 1.08)),
    dict(type='PILToNumpy', to_bgr=False),
    dict(type='Pad', size=(32, 32)),
    dict(type='PackInputs'),
]
test_pipeline = [
    dict(type='Pad', size=(32, 32)),
    dict(type='PackInputs'),
]

train_dataloader = dict(
    batch_size=64,
    num_workers=1,
    dataset=dict(type=dataset_type, split='train', imbalance_ratio=imbalance_ratio, pipeline=train_pipeline),
    sampler=dict(type='DefaultSampler', shuffle=True),
    drop_last=True,
)
val_dataloader = dict(
    batch_size=250,
    num_workers=1,
    dataset=dict(type=dataset_type, split='test', imbalance_ratio=imbalance_ratio, pipeline=test_pipeline),
    sampler=dict(type='DefaultSampler', shuffle=False),
)
val_evaluator = [dict(type='mmlt.ShotAccuracy')]
test_dataloader = val_dataloader
test_evaluator = val_evaluator

# --tta: mean logits of five crops (LIFT) of the picture enlarged as there, 248 px for 224.
tta_model = dict(type='mmlt.LogitTTA')
tta_pipeline = [
    dict(type='Pad', size=(32, 32)),
    dict(type='Resize', scale=(36, 36), interpolation='bicubic'),
    dict(
        type='TestTimeAug',
        transforms=[
            [
                dict(type='mmlt.FiveCropPart', crop_size=32, position=position)
                for position in ('top-left', 'top-right', 'bottom-left', 'bottom-right', 'centre')
            ],
            [dict(type='PackInputs')],
        ],
    ),
]

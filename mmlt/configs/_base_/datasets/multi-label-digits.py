# Multi-label digits: 1,000 training canvases, labels on 600 down to 6 of them; 1,000 test canvases.
dataset_type = 'mmlt.MultiLabelDigits'
imbalance_ratio = 100

train_pipeline = [
    dict(type='NumpyToPIL', to_rgb=False),
    dict(type='torchvision/RandomAffine', degrees=9, translate=(0.07, 0.07), scale=(0.92, 1.08)),
    dict(type='PILToNumpy', to_bgr=False),
    dict(type='PackInputs'),
]
test_pipeline = [dict(type='PackInputs')]

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
val_evaluator = [dict(type='mmlt.ShotMAP')]
test_dataloader = val_dataloader
test_evaluator = val_evaluator

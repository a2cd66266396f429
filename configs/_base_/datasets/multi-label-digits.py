# Multi-label digits: 1,000 training canvases, labels on 600 down to 6 of them; 1,000 test canvases.
_base_ = './mnist-lt.py'

dataset_type = 'mmlt.MultiLabelDigits'

# As for MNIST-LT, without the padding that CLIP's input size asks for.
train_pipeline = [
    dict(type='NumpyToPIL', to_rgb=False),
    dict(type='torchvision/RandomAffine', degrees=9, translate=(0.07, 0.07), scale=(0.92, 1.08)),
    dict(type='PILToNumpy', to_bgr=False),
    dict(type='PackInputs'),
]
test_pipeline = [dict(type='PackInputs')]

train_dataloader = dict(dataset=dict(type=dataset_type, pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(type=dataset_type, pipeline=test_pipeline))
val_evaluator = [dict(type='mmlt.ShotMAP')]
test_dataloader = val_dataloader
test_evaluator = val_evaluator

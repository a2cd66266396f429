# LIFT on MNIST-LT with the tiny ViT.
_base_ = [
    '../_base_/models/lift_clip_tiny-vit.py',
    '../_base_/datasets/mnist-lt.py',
    '../_base_/schedules/tiny.py',
    '../_base_/default_runtime.py',
]

# 28 px, not padded.
train_pipeline = [
    dict(type='NumpyToPIL', to_rgb=False),
    dict(type='torchvision/RandomAffine', degrees=9, translate=(0.07, 0.07), scale=(0.92, 1.08)),
    dict(type='PILToNumpy', to_bgr=False),
    dict(type='PackInputs'),
]
test_pipeline = [dict(type='PackInputs')]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader

# --tta: five crops of the digit enlarged to 32 px.
tta_model = dict(type='mmlt.LogitTTA')
tta_pipeline = [
    dict(type='Resize', scale=(32, 32), interpolation='bicubic'),
    dict(
        type='TestTimeAug',
        transforms=[
            [
                dict(type='mmlt.FiveCropPart', crop_size=28, position='top-left'),
                dict(type='mmlt.FiveCropPart', crop_size=28, position='top-right'),
                dict(type='mmlt.FiveCropPart', crop_size=28, position='bottom-left'),
                dict(type='mmlt.FiveCropPart', crop_size=28, position='bottom-right'),
                dict(type='mmlt.FiveCropPart', crop_size=28, position='centre'),
            ],
            [dict(type='PackInputs')],
        ]),
]

optim_wrapper = dict(optimizer=dict(lr=2e-3))

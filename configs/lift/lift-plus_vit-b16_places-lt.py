# LIFT+ on Places-LT: half the epochs, twice the learning rate, and crops whose smallest size grows.
_base_ = './lift_vit-b16_places-lt.py'

train_pipeline = [
    dict(type='LoadImageFromFile', imdecode_backend='pillow'),
    dict(
        type='mmlt.GrowingRandomResizedCrop', scale=224, start=0.08, backend='pillow', interpolation='bicubic'),
    dict(type='RandomFlip', prob=0.5, direction='horizontal'),
    dict(type='PackInputs'),
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))

max_epochs = 5
train_cfg = dict(max_epochs=max_epochs, val_interval=max_epochs)
optim_wrapper = dict(optimizer=dict(lr=0.02))

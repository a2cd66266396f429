# LIFT on MNIST-LT with the tiny ViT.
_base_ = [
    '../_base_/models/lift_clip_tiny-vit.py',
    '../_base_/datasets/mnist-lt.py',
    '../_base_/schedules/lift.py',
    '../_base_/default_runtime.py',
]

max_epochs = 20
train_cfg = dict(max_epochs=max_epochs, val_interval=5)
optim_wrapper = dict(optimizer=dict(lr=0.05))
auto_scale_lr = dict(base_batch_size=64)

# --tta: five crops of the picture enlarged as in LIFT, 248 px for 224.
tta_model = dict(type='mmlt.LogitTTA')
tta_pipeline = [
    dict(type='Pad', size=(32, 32)),
    dict(type='Resize', scale=(36, 36), interpolation='bicubic'),
    dict(
        type='TestTimeAug',
        transforms=[
            [
                dict(type='mmlt.FiveCropPart', crop_size=32, position='top-left'),
                dict(type='mmlt.FiveCropPart', crop_size=32, position='top-right'),
                dict(type='mmlt.FiveCropPart', crop_size=32, position='bottom-left'),
                dict(type='mmlt.FiveCropPart', crop_size=32, position='bottom-right'),
                dict(type='mmlt.FiveCropPart', crop_size=32, position='centre'),
            ],
            [dict(type='PackInputs')],
        ]),
]

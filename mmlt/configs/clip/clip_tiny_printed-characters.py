# Pretrains the tiny CLIP on printed characters with captions, and validates it zero-shot on handwriting.
# It plays the part of a web-pretrained CLIP: it knows all classes about equally, and has seen no handwriting.
_base_ = ['../_base_/default_runtime.py']

model = dict(
    type='mmlt.ContrastivePretrainer',
    backbone=dict(type='mmlt.OpenCLIPVision', model='mmlt-tiny-rn'),
    text=dict(type='mmlt.OpenCLIPText', model='mmlt-tiny-rn'),
    templates='a photo of the {}',
    data_preprocessor=dict(type='mmlt.CLIPDataPreprocessor', mean=[33.3] * 3, std=[78.6] * 3, to_rgb=False),
)

train_dataloader = dict(
    batch_size=256,
    num_workers=1,
    dataset=dict(
        type='mmlt.PrintedCharacters',
        num_samples=24000,
        pipeline=[
            dict(type='Pad', size=(32, 32)),
            dict(type='PackInputs', algorithm_keys=('caption',)),
        ],
    ),
    sampler=dict(type='DefaultSampler', shuffle=True),
    drop_last=True,
)
val_dataloader = dict(
    batch_size=250,
    num_workers=1,
    dataset=dict(
        type='mmlt.MNISTLT',
        split='test',
        pipeline=[
            dict(type='Pad', size=(32, 32)),
            dict(type='PackInputs'),
        ],
    ),
    sampler=dict(type='DefaultSampler', shuffle=False),
)
val_evaluator = [dict(type='mmlt.ShotAccuracy')]
test_dataloader = val_dataloader
test_evaluator = val_evaluator

max_epochs = 5
train_cfg = dict(by_epoch=True, max_epochs=max_epochs, val_interval=max_epochs)
val_cfg = dict()
test_cfg = dict()
optim_wrapper = dict(optimizer=dict(type='AdamW', lr=3e-3, weight_decay=0.05, fused=True))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.05, by_epoch=True, end=1, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', eta_min=0, by_epoch=True, begin=1, convert_to_iter_based=True),
]

# Trained on 62 characters, validated on the ten digits.
default_hooks = dict(class_info=dict(split='val'), export=dict(type='mmlt.ExportOpenCLIPHook'))

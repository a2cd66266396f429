# Pretrains the tiny CLIP on icons with captions, and validates it zero-shot on emoji.
# It plays the part of a web-pretrained CLIP: it knows many things by name, and has seen no emoji.
_base_ = ['../_base_/default_runtime.py']

model = dict(
    type='mmlt.ContrastivePretrainer',
    backbone=dict(type='mmlt.OpenCLIPVision', model='mmlt-tiny-rn'),
    text=dict(type='mmlt.OpenCLIPText', model='mmlt-tiny-rn'),
    templates='a picture of the {}',
    data_preprocessor=dict(
        type='mmlt.CLIPDataPreprocessor', mean=[180] * 3, std=[80] * 3, to_rgb=False))

train_dataloader = dict(
    batch_size=256,
    num_workers=1,
    dataset=dict(
        type='mmlt.NamedIcons',
        num_samples=24000,
        pipeline=[dict(type='PackInputs', algorithm_keys=('caption',))]),
    sampler=dict(type='DefaultSampler', shuffle=True),
    drop_last=True)
val_dataloader = dict(
    batch_size=250,
    num_workers=1,
    dataset=dict(type='mmlt.TwemojiLT', split='val', pipeline=[dict(type='PackInputs')]),
    sampler=dict(type='DefaultSampler', shuffle=False))
val_evaluator = [dict(type='mmlt.ShotAccuracy')]
test_dataloader = dict(
    batch_size=250,
    num_workers=1,
    dataset=dict(type='mmlt.TwemojiLT', split='test', pipeline=[dict(type='PackInputs')]),
    sampler=dict(type='DefaultSampler', shuffle=False))
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

# Trained on kinds and names of icons, validated on the kinds of emoji.
default_hooks = dict(
    class_info=dict(split='val'),
    export=dict(type='mmlt.ExportOpenCLIPHook'))

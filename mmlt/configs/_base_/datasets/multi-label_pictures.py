# Pictures in files with several labels each; a data set adds its folder and its annotation.
dataset_type = 'mmlt.LongTailedMultiLabel'

train_pipeline = [
    dict(type='mmlt.LoadPicture'),
    dict(type='mmlt.RandomResizedCrop', scale=224, crop_ratio_range=(0.64, 1.0)),
    dict(type='mmlt.RandomFlip', prob=0.5, direction='horizontal'),
    dict(type='mmlt.ColorJitter', brightness=0.4, contrast=0.4, saturation=0.4),
    dict(type='PackInputs'),
]
# Squeezed, not cropped: at the border there may be an object that is a label.
test_pipeline = [
    dict(type='mmlt.LoadPicture'),
    dict(type='Resize', scale=(224, 224)),
    dict(type='PackInputs'),
]

train_dataloader = dict(
    batch_size=32,
    num_workers='auto',
    dataset=dict(type=dataset_type, pipeline=train_pipeline),
    sampler=dict(type='DefaultSampler', shuffle=True),
    drop_last=True,
)
val_dataloader = dict(
    batch_size=128,
    num_workers='auto',
    dataset=dict(type=dataset_type, pipeline=test_pipeline),
    sampler=dict(type='DefaultSampler', shuffle=False),
)
val_evaluator = [dict(type='mmlt.ShotMAP')]
test_dataloader = val_dataloader
test_evaluator = val_evaluator

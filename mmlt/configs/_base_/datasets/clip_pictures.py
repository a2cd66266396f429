# Pictures in files as BALLAD trains CLIP on them; a data set adds its folder and its lists.
dataset_type = 'mmlt.LongTailedDataset'

train_pipeline = [
    dict(type='mmlt.LoadPicture'),
    dict(
        type='mmlt.RandomResizedCrop', scale=224, crop_ratio_range=(0.5, 1.0), backend='pillow', interpolation='bicubic'
    ),
    dict(type='mmlt.RandomFlip', prob=0.5, direction='horizontal'),
    dict(type='mmlt.ColorJitter', brightness=0.4, contrast=0.4, saturation=0.4),
    dict(type='PackInputs'),
]
test_pipeline = [
    dict(type='mmlt.LoadPicture'),
    dict(type='ResizeEdge', scale=224, edge='short', backend='pillow', interpolation='bicubic'),
    dict(type='CenterCrop', crop_size=224),
    dict(type='PackInputs'),
]

# A batch of 64 a GPU on 8 GPUs makes the 512 of BALLAD's paper.
train_dataloader = dict(
    batch_size=64,
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
val_evaluator = [dict(type='mmlt.ShotAccuracy')]
test_dataloader = val_dataloader
test_evaluator = val_evaluator

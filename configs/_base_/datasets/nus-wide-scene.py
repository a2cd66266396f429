# NUS-WIDE-SCENE: the 33 scene concepts of NUS-WIDE, named in classes.txt.
# The tables have a column `image` and one of 0 and 1 for each concept; others than the 33 may be in them.
dataset_type = 'mmlt.LongTailedMultiLabel'
data_root = 'data/nus-wide/'
classes = 'classes.txt'

train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='RandomResizedCrop', scale=224, crop_ratio_range=(0.64, 1.0)),
    dict(type='RandomFlip', prob=0.5, direction='horizontal'),
    dict(type='ColorJitter', brightness=0.4, contrast=0.4, saturation=0.4),
    dict(type='PackInputs'),
]
# Squeezed, not cropped: at the border there may be an object that is a label.
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=(224, 224)),
    dict(type='PackInputs'),
]

train_dataloader = dict(
    batch_size=32,
    num_workers=4,
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        ann_file='train.csv',
        classes=classes,
        data_prefix='images',
        pipeline=train_pipeline),
    sampler=dict(type='DefaultSampler', shuffle=True),
    drop_last=True)
val_dataloader = dict(
    batch_size=128,
    num_workers=4,
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        ann_file='test.csv',
        train_ann_file='train.csv',
        classes=classes,
        data_prefix='images',
        pipeline=test_pipeline),
    sampler=dict(type='DefaultSampler', shuffle=False))
val_evaluator = [dict(type='mmlt.ShotMAP')]
test_dataloader = val_dataloader
test_evaluator = val_evaluator

# COCO-LT (Wu et al. 2020): 1,909 training images of COCO 2017, 80 classes; the 5,000 of val2017 to test.
# Beside train2017/ and val2017/ lies longtail2017/ of the authors' repository; its img_id.pkl is a text.
dataset_type = 'mmlt.LongTailedMultiLabel'
data_root = 'data/coco/'
stats = dict(class_freq='longtail2017/class_freq.pkl', class_split='longtail2017/class_split.pkl')

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
        ann_file='annotations/instances_train2017.json',
        img_ids='longtail2017/img_id.pkl',
        data_prefix='train2017',
        **stats,
        pipeline=train_pipeline),
    sampler=dict(type='DefaultSampler', shuffle=True),
    drop_last=True)
val_dataloader = dict(
    batch_size=128,
    num_workers=4,
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        ann_file='annotations/instances_val2017.json',
        data_prefix='val2017',
        **stats,
        pipeline=test_pipeline),
    sampler=dict(type='DefaultSampler', shuffle=False))
val_evaluator = [dict(type='mmlt.ShotMAP')]
test_dataloader = val_dataloader
test_evaluator = val_evaluator

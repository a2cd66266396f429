# VOC-LT (Wu et al. 2020): 1,142 training images of VOC 2012, 20 classes; VOC 2007's 4,952 to test.
# Beside VOC2007/ and VOC2012/ lies longtail2012/ of the authors' repository.
dataset_type = 'mmlt.LongTailedMultiLabel'
data_root = 'data/VOCdevkit/'
stats = dict(class_freq='longtail2012/class_freq.pkl', class_split='longtail2012/class_split.pkl')

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
        ann_file='VOC2012/Annotations',
        img_ids='longtail2012/img_id.txt',
        data_prefix='VOC2012/JPEGImages',
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
        ann_file='VOC2007/Annotations',
        img_ids='VOC2007/ImageSets/Main/test.txt',
        data_prefix='VOC2007/JPEGImages',
        **stats,
        pipeline=test_pipeline),
    sampler=dict(type='DefaultSampler', shuffle=False))
val_evaluator = [dict(type='mmlt.ShotMAP')]
test_dataloader = val_dataloader
test_evaluator = val_evaluator

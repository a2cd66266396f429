# iNaturalist 2018: 437,513 training images of 8,142 species, 3 of each to test.
# The JSON files lie in data_root, the images in train_val2018/ below it.
dataset_type = 'mmlt.INaturalist2018'
data_root = 'data/inat18/'
classes = 'categories.json'

train_dataloader = dict(
    batch_size=128,
    num_workers='auto',
    dataset=dict(type=dataset_type, data_root=data_root, ann_file='train2018.json', classes=classes),
    sampler=dict(type='DefaultSampler', shuffle=True),
    drop_last=True,
)
val_dataloader = dict(
    batch_size=128,
    num_workers='auto',
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        ann_file='val2018.json',
        train_ann_file='train2018.json',
        classes=classes,
    ),
    sampler=dict(type='DefaultSampler', shuffle=False),
)
test_dataloader = val_dataloader
val_evaluator = [dict(type='mmlt.ShotAccuracy')]
test_evaluator = val_evaluator

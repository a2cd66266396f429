# iNaturalist 2018 as VL-LTR trains on it: 437,513 training images of 8,142 species, 3 of each to test.
# The JSON files lie in data_root, the images in train_val2018/ below it, the texts in wiki/.
_base_ = './vlltr_pipelines.py'

dataset_type = 'mmlt.INaturalist2018'
data_root = 'data/inat18/'
classes = 'categories.json'
class_texts = 'wiki'
train_pipeline = _base_.vlltr_train_pipeline
test_pipeline = _base_.vlltr_test_pipeline

train_dataloader = dict(
    batch_size=128,
    num_workers=8,
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        ann_file='train2018.json',
        classes=classes,
        class_texts=class_texts,
        pipeline=train_pipeline),
    sampler=dict(type='mmlt.SquareRootSampler'),
    drop_last=True)
val_dataloader = dict(
    batch_size=128,
    num_workers=8,
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        ann_file='val2018.json',
        train_ann_file='train2018.json',
        classes=classes,
        class_texts=class_texts,
        pipeline=test_pipeline),
    sampler=dict(type='DefaultSampler', shuffle=False))
test_dataloader = val_dataloader
val_evaluator = [dict(type='mmlt.ShotAccuracy', protocol='vl-ltr')]
test_evaluator = val_evaluator

# ImageNet-LT as VL-LTR trains on it: texts in data_root/wiki, square-root sampling, DeiT's augmentation;
# the shots as its paper splits them.
_base_ = ['./imagenet-lt.py', './vlltr_pipelines.py']

class_texts = 'wiki'
train_pipeline = _base_.vlltr_train_pipeline
test_pipeline = _base_.vlltr_test_pipeline

train_dataloader = dict(
    batch_size=128,
    dataset=dict(class_texts=class_texts, pipeline=train_pipeline),
    sampler=dict(_delete_=True, type='mmlt.SquareRootSampler'),
)
val_dataloader = dict(dataset=dict(class_texts=class_texts, pipeline=test_pipeline))
test_dataloader = dict(dataset=dict(class_texts=class_texts, pipeline=test_pipeline))
val_evaluator = [dict(type='mmlt.ShotAccuracy', protocol='vl-ltr')]
test_evaluator = val_evaluator

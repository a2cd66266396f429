# Twemoji-LT: about 2,450 training emoji, 513 down to 3 a class; validation 153, test 210.
# Validated on groups of emoji that are in neither of the other splits.
dataset_type = 'mmlt.TwemojiLT'

# Arrays are RGB all the way. Emoji are drawn upright and centred: little augmentation.
train_pipeline = [
    dict(type='NumpyToPIL', to_rgb=False),
    dict(type='torchvision/RandomAffine', degrees=5, translate=(0.05, 0.05), scale=(0.95, 1.05), fill=255),
    dict(type='PILToNumpy', to_bgr=False),
    dict(type='PackInputs'),
]
test_pipeline = [dict(type='PackInputs')]

train_dataloader = dict(
    batch_size=64,
    num_workers=1,
    dataset=dict(type=dataset_type, split='train', pipeline=train_pipeline),
    sampler=dict(type='DefaultSampler', shuffle=True),
    drop_last=True,
)
val_dataloader = dict(
    batch_size=250,
    num_workers=1,
    dataset=dict(type=dataset_type, split='val', pipeline=test_pipeline),
    sampler=dict(type='DefaultSampler', shuffle=False),
)
val_evaluator = [dict(type='mmlt.ShotAccuracy')]
test_dataloader = dict(
    batch_size=250,
    num_workers=1,
    dataset=dict(type=dataset_type, split='test', pipeline=test_pipeline),
    sampler=dict(type='DefaultSampler', shuffle=False),
)
test_evaluator = val_evaluator

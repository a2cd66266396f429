# CUE on CIFAR-100-LT: LIFT, and related classes as further positives of two binary losses. Without a language model
# mmlt neighbours writes the file of neighbours.
_base_ = ['./lift_vit-b16_cifar100-lt.py']

model = dict(
    type='mmlt.CUEClassifier',
    teacher=dict(model='ViT-B-16', pretrained='openai', quick_gelu=True, compile='auto'),
    head=dict(loss=dict(_delete_=True, type='mmlt.CUELoss', neighbours='data/cifar100/neighbours.json')))

# As in its published code, the small pictures are enlarged and flipped, but not cut.
enlarge = dict(type='ResizeEdge', scale=224, edge='short', backend='pillow', interpolation='bilinear')
train_pipeline = [
    *_base_.rgb_to_bgr,
    enlarge,
    dict(type='mmlt.RandomFlip', prob=0.5, direction='horizontal'),
    dict(type='PackInputs'),
]
test_pipeline = [*_base_.rgb_to_bgr, enlarge, dict(type='PackInputs')]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
del enlarge

# CUE on ImageNet-LT: LIFT, and related classes as further positives of two binary losses. Without a language model
# mmlt neighbours writes the file of neighbours.
_base_ = './lift_vit-b16_imagenet-lt.py'

model = dict(
    type='mmlt.CUEClassifier',
    teacher=dict(model='ViT-B-16', pretrained='openai', quick_gelu=True, compile='auto'),
    head=dict(loss=dict(_delete_=True, type='mmlt.CUELoss', neighbours='data/imagenet/neighbours.json')))

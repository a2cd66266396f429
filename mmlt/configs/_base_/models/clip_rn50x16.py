# OpenAI's CLIP with a ResNet-50 of 16 times the compute, 384 px.
_base_ = './clip_rn50.py'

model = dict(backbone=dict(model='RN50x16'), head=dict(text=dict(model='RN50x16')))

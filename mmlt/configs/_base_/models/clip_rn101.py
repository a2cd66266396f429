# OpenAI's CLIP with a ResNet-101.
_base_ = './clip_rn50.py'

model = dict(backbone=dict(model='RN101'), head=dict(text=dict(model='RN101')))

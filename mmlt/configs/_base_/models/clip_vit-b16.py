# OpenAI's CLIP with a ViT-B/16.
_base_ = './clip_rn50.py'

model = dict(backbone=dict(model='ViT-B-16'), head=dict(text=dict(model='ViT-B-16')))

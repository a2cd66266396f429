# VL-LTR stage 1 with OpenAI's CLIP ViT-B/16.
_base_ = './cvlp_clip_rn50.py'

model = dict(backbone=dict(model='ViT-B-16'), text=dict(model='ViT-B-16'), teacher=dict(model='ViT-B-16'))

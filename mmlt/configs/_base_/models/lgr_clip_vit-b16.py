# VL-LTR stage 2 with CLIP's ViT-B/16.
_base_ = './lgr_clip_rn50.py'

model = dict(backbone=dict(model='ViT-B-16'), head=dict(in_channels=512))

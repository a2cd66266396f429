# VL-LTR stage 2 as its paper's text has it, with CLIP's ViT-B/16.
_base_ = './lgr_clip_rn50_paper.py'

model = dict(backbone=dict(model='ViT-B-16'), head=dict(in_channels=512))

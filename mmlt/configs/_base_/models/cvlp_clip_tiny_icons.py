# VL-LTR stage 1 as in cvlp_clip_tiny.py, from the CLIP pretrained on icons.
_base_ = './cvlp_clip_tiny.py'

stages = dict(clip=dict(config='../clip/clip_tiny_named-icons.py', work_dir='work_dirs/clip_tiny_named-icons'))

model = dict(
    texts=dict(templates='a picture of the {}'),
    templates='a picture of the {}',
    data_preprocessor=dict(mean=[180] * 3, std=[80] * 3),
)

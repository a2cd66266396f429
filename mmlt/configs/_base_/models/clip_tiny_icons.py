# The tiny CLIP pretrained on icons (configs/clip/clip_tiny_named-icons.py) as an image-text classifier.
_base_ = './clip_tiny.py'

stages = dict(clip=dict(config='../clip/clip_tiny_named-icons.py', work_dir='work_dirs/clip_tiny_named-icons'))

model = dict(head=dict(templates='a picture of the {}'), data_preprocessor=dict(mean=[180] * 3, std=[80] * 3))

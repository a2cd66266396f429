# LIFT as in lift_clip_tiny-vit.py, for the 42 kinds of emoji, with the tiny ViT pretrained on icons.
_base_ = './lift_clip_tiny-vit.py'

stages = dict(clip=dict(config='../clip/clip_tiny-vit_named-icons.py', work_dir='work_dirs/clip_tiny-vit_named-icons'))

model = dict(
    head=dict(num_classes=42, templates='a picture of the {}'), data_preprocessor=dict(mean=[180] * 3, std=[80] * 3)
)

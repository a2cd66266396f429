# BALLAD phase B as in ballad-b_clip_tiny.py, with the prompts and statistics of the CLIP pretrained on icons.
_base_ = './ballad-b_clip_tiny.py'

model = dict(head=dict(templates='a picture of the {}'), data_preprocessor=dict(mean=[180] * 3, std=[80] * 3))

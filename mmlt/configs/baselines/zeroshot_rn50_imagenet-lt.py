# CLIP's RN50 as it is, with the 80 prompts for ImageNet, on ImageNet-LT.
_base_ = [
    '../_base_/models/clip_rn50.py',
    '../_base_/datasets/imagenet-lt_vlltr.py',
    '../_base_/default_runtime.py',
]

model = dict(head=dict(templates='imagenet'))

# Nothing is trained. MMEngine takes a dataloader without its loop for a mistake.
train_dataloader = None
val_cfg = dict()
test_cfg = dict()

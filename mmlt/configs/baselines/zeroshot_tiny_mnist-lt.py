# The tiny CLIP as it was pretrained, on MNIST-LT.
_base_ = [
    '../_base_/models/clip_tiny.py',
    '../_base_/datasets/mnist-lt.py',
    '../_base_/default_runtime.py',
]

# Nothing is trained. MMEngine takes a dataloader without its loop for a mistake.
train_dataloader = None
val_cfg = dict()
test_cfg = dict()

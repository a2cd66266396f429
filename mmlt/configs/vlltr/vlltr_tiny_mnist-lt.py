# VL-LTR on MNIST-LT with the tiny CLIP: class-wise pretraining, anchor sentences, then the LGR head.
_base_ = [
    '../_base_/models/lgr_clip_tiny.py',
    '../_base_/datasets/mnist-lt.py',
    '../_base_/schedules/tiny.py',
    '../_base_/default_runtime.py',
]

stages = dict(cvlp=dict(config='vlltr_tiny_mnist-lt_cvlp.py', load_from=True))
train_dataloader = dict(sampler=dict(_delete_=True, type='mmlt.SquareRootSampler'))

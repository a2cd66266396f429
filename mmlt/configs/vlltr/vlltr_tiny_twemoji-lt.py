# VL-LTR on Twemoji-LT with the tiny CLIP: class-wise pretraining, anchor sentences, then the LGR head.
_base_ = [
    '../_base_/models/lgr_clip_tiny_icons.py',
    '../_base_/datasets/twemoji-lt.py',
    '../_base_/schedules/tiny.py',
    '../_base_/default_runtime.py',
]

stages = dict(cvlp=dict(config='vlltr_tiny_twemoji-lt_cvlp.py', load_from=True))
train_dataloader = dict(sampler=dict(_delete_=True, type='mmlt.SquareRootSampler'))

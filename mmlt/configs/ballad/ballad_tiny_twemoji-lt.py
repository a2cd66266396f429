# BALLAD on Twemoji-LT with the tiny CLIP: phase A, then phase B with class-balanced sampling.
_base_ = [
    '../_base_/models/ballad-b_clip_tiny_icons.py',
    '../_base_/datasets/twemoji-lt.py',
    '../_base_/schedules/ballad_phase-b.py',
    '../_base_/default_runtime.py',
]

# Phase A has the pretraining as a stage of its own.
stages = dict(_delete_=True, phase_a=dict(config='ballad_tiny_twemoji-lt_phase-a.py', load_from=True))
train_dataloader = dict(sampler=dict(_delete_=True, type='mmlt.ClassBalancedSampler'))
# Ten random views of every emoji, encoded once.
default_hooks = dict(feature_cache=dict(type='mmlt.FeatureCacheHook', views=10))
# As the other tiny configs: cosine by iteration.
param_scheduler = [dict(type='CosineAnnealingLR', eta_min=0, by_epoch=True, convert_to_iter_based=True)]
train_cfg = dict(val_interval=10)
auto_scale_lr = dict(base_batch_size=64)

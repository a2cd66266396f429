# BALLAD on ImageNet-LT with CLIP's ViT-B/16: phase A, then phase B with class-balanced sampling.
_base_ = [
    '../_base_/models/ballad-b_clip_vit-b16.py',
    '../_base_/datasets/imagenet-lt.py',
    '../_base_/schedules/ballad_phase-b.py',
    '../_base_/default_runtime.py',
]

stages = dict(phase_a=dict(config='ballad_vit-b16_imagenet-lt_phase-a.py', load_from=True))
train_dataloader = dict(
    sampler=dict(_delete_=True, type='mmlt.ClassAwareSampler', samples_per_class=4, num_samples='images')
)
default_hooks = dict(
    checkpoint=dict(save_best='shot/all', rule='greater'),
    feature_cache=dict(type='mmlt.FeatureCacheHook', views='epochs'),
)

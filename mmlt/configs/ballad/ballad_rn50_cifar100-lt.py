# BALLAD on CIFAR-100-LT with CLIP's RN50: phase A, then phase B with class-balanced sampling.
_base_ = [
    '../_base_/models/ballad-b_clip_rn50.py',
    '../_base_/datasets/cifar100-lt.py',
    '../_base_/schedules/ballad_phase-b.py',
    '../_base_/default_runtime.py',
]

stages = dict(phase_a=dict(config='ballad_rn50_cifar100-lt_phase-a.py', load_from=True))
train_dataloader = dict(
    sampler=dict(_delete_=True, type='mmlt.ClassAwareSampler', samples_per_class=4, num_samples='images')
)
# There is no validation split, and the test split chooses no checkpoint: the last one is kept.
default_hooks = dict(feature_cache=dict(type='mmlt.FeatureCacheHook', views='epochs'))

# Classifier re-training (Kang et al. 2020) on Twemoji-LT: cross entropy, then a new classifier on its
# frozen image tower with class-balanced sampling.
_base_ = './ce_tiny_twemoji-lt.py'

stages = dict(_delete_=True, ce=dict(config='ce_tiny_twemoji-lt.py', load_from='backbone'))
model = dict(backbone=dict(pretrained=None, frozen=True))
train_dataloader = dict(sampler=dict(_delete_=True, type='mmlt.ClassBalancedSampler'))
train_cfg = dict(max_epochs=10, val_interval=10)
# Ten random views of every emoji, encoded once.
default_hooks = dict(feature_cache=dict(type='mmlt.FeatureCacheHook', views=10))

# Classifier re-training (Kang et al. 2020) on ImageNet-LT: cross entropy, then a new classifier on its
# frozen image tower with class-balanced sampling.
_base_ = './ce_rn50_imagenet-lt.py'

stages = dict(ce=dict(config='ce_rn50_imagenet-lt.py', load_from='backbone'))
model = dict(backbone=dict(pretrained=None, frozen=True))
train_dataloader = dict(sampler=dict(type='mmlt.ClassBalancedSampler'))
max_epochs = 10
train_cfg = dict(max_epochs=max_epochs)

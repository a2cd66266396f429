# Tau-normalised classifier (Kang et al. 2020) on ImageNet-LT: cross entropy, tested with other lengths
# of the class vectors.
_base_ = './ce_rn50_imagenet-lt.py'

stages = dict(ce=dict(config='ce_rn50_imagenet-lt.py', load_from=True))
model = dict(backbone=dict(pretrained=None), head=dict(type='mmlt.TauNormClsHead', tau=0.5))

# Nothing is trained here.
train_cfg = None
train_dataloader = None
optim_wrapper = None
param_scheduler = None

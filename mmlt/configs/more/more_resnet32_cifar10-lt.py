# MORE on CIFAR-10-LT: cross entropy with a ResNet-32 from random weights.
_base_ = ['../baselines/ce_resnet32_cifar10-lt.py']

model = dict(_delete_=True, type='mmlt.MORE', classifier={{_base_.model}})
optim_wrapper = dict(clip_grad=dict(max_norm=5))
default_hooks = dict(more=dict(type='mmlt.MOREHook'))

# MORE on Twemoji-LT: cross entropy from the tiny CLIP's image tower.
_base_ = ['../baselines/ce_tiny_twemoji-lt.py']

model = dict(_delete_=True, type='mmlt.MORE', classifier={{_base_.model}})
optim_wrapper = dict(clip_grad=dict(max_norm=5))
default_hooks = dict(more=dict(type='mmlt.MOREHook'))

# MORE on the multi-label digits with binary cross-entropy.
_base_ = ['../baselines/bce_tiny_multi-label-digits.py']

# The base loss is a mean over the 10 classes, and so is the penalty: A = 2.
model = dict(_delete_=True, type='mmlt.MORE', classifier={{_base_.model}}, peak=2 / 10)
optim_wrapper = dict(clip_grad=dict(max_norm=5))
default_hooks = dict(more=dict(type='mmlt.MOREHook', protocol='db'))

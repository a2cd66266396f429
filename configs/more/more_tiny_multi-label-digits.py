# MORE on the multi-label digits with binary cross-entropy.
_base_ = ['../baselines/bce_tiny_multi-label-digits.py']

model = dict(_delete_=True, type='mmlt.MORE', classifier={{_base_.model}})
default_hooks = dict(more=dict(type='mmlt.MOREHook', protocol='db'))

# MORE on MIML with binary cross-entropy; not run by us.
_base_ = ['../baselines/bce_rn50_miml.py']

model = dict(_delete_=True, type='mmlt.MORE', classifier={{_base_.model}})
default_hooks = dict(more=dict(type='mmlt.MOREHook', protocol='db'))

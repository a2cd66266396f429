# MORE on MIML with binary cross-entropy; not run by us.
_base_ = ['../baselines/bce_rn50_miml.py']

# The base loss is a mean over the 5 classes, and so is the penalty: A = 2.
model = dict(_delete_=True, type='mmlt.MORE', classifier={{_base_.model}}, peak=2 / 5)
optim_wrapper = dict(clip_grad=dict(max_norm=5))
default_hooks = dict(more=dict(type='mmlt.MOREHook', protocol='db'))

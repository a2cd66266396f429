# MORE on NUS-WIDE-SCENE with binary cross-entropy; not run by us.
_base_ = ['../baselines/bce_rn50_nus-wide-scene.py']

# The base loss is a mean over the 33 classes, and so is the penalty: A = 2.
model = dict(_delete_=True, type='mmlt.MORE', classifier={{_base_.model}}, peak=2 / 33)
optim_wrapper = dict(clip_grad=dict(max_norm=5))
default_hooks = dict(more=dict(type='mmlt.MOREHook', protocol='db'))

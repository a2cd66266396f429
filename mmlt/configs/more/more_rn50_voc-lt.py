# MORE on VOC-LT with the distribution-balanced loss; not run by us.
_base_ = ['../baselines/db_rn50_voc-lt.py']

# The base loss is a mean over the 20 classes, and so is the penalty: A = 2.
model = dict(_delete_=True, type='mmlt.MORE', classifier={{_base_.model}}, peak=2 / 20)
optim_wrapper = dict(clip_grad=dict(max_norm=5))
default_hooks = dict(more=dict(type='mmlt.MOREHook', protocol='db'))

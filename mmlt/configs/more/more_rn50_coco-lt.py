# MORE on COCO-LT with the distribution-balanced loss; not run by us.
_base_ = ['../baselines/db_rn50_coco-lt.py']

# The base loss is a mean over the 80 classes, and so is the penalty: A = 2.
model = dict(_delete_=True, type='mmlt.MORE', classifier={{_base_.model}}, peak=2 / 80)
optim_wrapper = dict(clip_grad=dict(max_norm=5))
default_hooks = dict(more=dict(type='mmlt.MOREHook', protocol='db'))

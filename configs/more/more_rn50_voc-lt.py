# MORE on VOC-LT with the distribution-balanced loss; not run by us.
_base_ = ['../baselines/db_rn50_voc-lt.py']

model = dict(_delete_=True, type='mmlt.MORE', classifier={{_base_.model}})
default_hooks = dict(more=dict(type='mmlt.MOREHook', protocol='db'))

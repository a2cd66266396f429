# MORE on iNaturalist 2018: the image tower of CLIP's ViT-B/16 is fine-tuned with a linear classifier.
_base_ = ['../baselines/ce_vit-b16_inat18.py']

model = dict(_delete_=True, type='mmlt.MORE', classifier={{_base_.model}})
optim_wrapper = dict(clip_grad=dict(max_norm=5))
default_hooks = dict(more=dict(type='mmlt.MOREHook'))

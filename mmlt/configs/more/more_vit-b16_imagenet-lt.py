# MORE on ImageNet-LT: both towers of CLIP's ViT-B/16 are fine-tuned, as in BALLAD's phase A.
_base_ = ['../ballad/ballad_vit-b16_imagenet-lt_phase-a.py']

model = dict(_delete_=True, type='mmlt.MORE', classifier={{_base_.model}})
optim_wrapper = dict(clip_grad=dict(max_norm=5))
default_hooks = dict(more=dict(type='mmlt.MOREHook'))

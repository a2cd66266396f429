# Full fine-tuning on ImageNet-LT: all of DINOv2's ViT-B/14 trained, without adapters, under the head, the loss and the
# schedule of LIFT. The tower's tenth of the rate is ours and untuned.
_base_ = '../lift/lift_dinov2-vit-b14_imagenet-lt.py'

model = dict(backbone=dict(adapter=None))
optim_wrapper = dict(paramwise_cfg=dict(custom_keys={'backbone': dict(lr_mult=0.1)}))

# MORE on VL-LTR's second stage: the image tower of stage 1 and the LGR head are split.
_base_ = ['../vlltr/vlltr_tiny_mnist-lt.py']

stages = dict(cvlp=dict(config='../vlltr/vlltr_tiny_mnist-lt_cvlp.py'))
model = dict(_delete_=True, type='mmlt.MORE', classifier={{_base_.model}})
optim_wrapper = dict(clip_grad=dict(max_norm=5))
default_hooks = dict(more=dict(type='mmlt.MOREHook'))

# VL-LTR on ImageNet-LT with CLIP's ViT-B/16: class-wise pretraining, anchor sentences, then the LGR head.
_base_ = [
    '../_base_/models/lgr_clip_vit-b16.py',
    '../_base_/datasets/imagenet-lt_vlltr.py',
    '../_base_/schedules/vlltr_lgr.py',
    '../_base_/default_runtime.py',
]

stages = dict(cvlp=dict(config='vlltr_vit-b16_imagenet-lt_cvlp.py', load_from=True))

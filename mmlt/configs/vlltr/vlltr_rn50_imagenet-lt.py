# VL-LTR on ImageNet-LT with CLIP's RN50: class-wise pretraining, anchor sentences, then the LGR head.
_base_ = [
    '../_base_/models/lgr_clip_rn50.py',
    '../_base_/datasets/imagenet-lt_vlltr.py',
    '../_base_/schedules/vlltr_lgr.py',
    '../_base_/default_runtime.py',
]

stages = dict(cvlp=dict(config='vlltr_rn50_imagenet-lt_cvlp.py', load_from=True))

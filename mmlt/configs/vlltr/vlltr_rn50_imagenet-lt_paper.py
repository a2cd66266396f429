# VL-LTR on ImageNet-LT with CLIP's RN50 as the paper's text has it.
# The paper's figures were made by the published code, see vlltr_rn50_imagenet-lt.py.
_base_ = [
    '../_base_/models/lgr_clip_rn50_paper.py',
    '../_base_/datasets/imagenet-lt_vlltr.py',
    '../_base_/schedules/vlltr_lgr_paper.py',
    '../_base_/default_runtime.py',
]

stages = dict(cvlp=dict(config='vlltr_rn50_imagenet-lt_paper_cvlp.py', load_from=True))

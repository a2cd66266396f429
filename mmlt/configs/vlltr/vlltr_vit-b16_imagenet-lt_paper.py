# VL-LTR on ImageNet-LT with CLIP's ViT-B/16 as the paper's text has it.
# The paper's figures were made by the published code, see vlltr_vit-b16_imagenet-lt.py.
_base_ = [
    '../_base_/models/lgr_clip_vit-b16_paper.py',
    '../_base_/datasets/imagenet-lt_vlltr.py',
    '../_base_/schedules/vlltr_lgr_paper.py',
    '../_base_/default_runtime.py',
]

stages = dict(cvlp=dict(config='vlltr_vit-b16_imagenet-lt_paper_cvlp.py', load_from=True))

# VL-LTR on iNaturalist 2018 with CLIP's RN50: class-wise pretraining, anchor sentences, then the LGR head.
_base_ = [
    '../_base_/models/lgr_clip_rn50.py',
    '../_base_/datasets/inat18_vlltr.py',
    '../_base_/schedules/vlltr_lgr_inat18.py',
    '../_base_/default_runtime.py',
]

stages = dict(cvlp=dict(config='vlltr_rn50_inat18_cvlp.py', load_from=True))
# On iNaturalist the image tower is trained, in eval mode, and the norm of G has no gradient.
model = dict(
    backbone=dict(frozen=False),
    head=dict(num_classes=8142, detach_norm=True, fusion=0.7),
    data_preprocessor=dict(num_classes=8142),
)

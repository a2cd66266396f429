# VL-LTR on iNaturalist 2018 with CLIP's ViT-B/16 at 384 px, in both stages.
_base_ = [
    '../_base_/models/lgr_clip_vit-b16.py',
    '../_base_/datasets/inat18_vlltr_384px.py',
    '../_base_/schedules/vlltr_lgr_inat18.py',
    '../_base_/default_runtime.py',
]

stages = dict(cvlp=dict(config='vlltr_vit-b16-384_inat18_cvlp.py', load_from=True))
# On iNaturalist the image tower is trained, in eval mode, and the norm of G has no gradient.
model = dict(
    backbone=dict(image_size=384, frozen=False),
    head=dict(num_classes=8142, detach_norm=True, fusion=0.7),
    data_preprocessor=dict(num_classes=8142),
)

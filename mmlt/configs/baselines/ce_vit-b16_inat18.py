# VL-LTR's baseline on iNaturalist 2018 with CLIP's ViT-B/16: a linear classifier, image tower and classifier
# trained like VL-LTR's stage 2, without any text.
_base_ = [
    '../_base_/models/clip_vit-b16.py',
    '../_base_/datasets/inat18_vlltr.py',
    '../_base_/schedules/vlltr_lgr_inat18_paper.py',
    '../_base_/default_runtime.py',
]

model = dict(head=dict(_delete_=True, type='LinearClsHead', num_classes=8142, in_channels=512))

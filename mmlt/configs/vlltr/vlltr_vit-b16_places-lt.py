# VL-LTR on Places-LT with CLIP's ViT-B/16: class-wise pretraining, anchor sentences, then the LGR head.
_base_ = [
    '../_base_/models/lgr_clip_vit-b16.py',
    '../_base_/datasets/places-lt_vlltr.py',
    '../_base_/schedules/vlltr_lgr.py',
    '../_base_/default_runtime.py',
]

stages = dict(cvlp=dict(config='vlltr_vit-b16_places-lt_cvlp.py', load_from=True))
model = dict(head=dict(num_classes=365), data_preprocessor=dict(num_classes=365))
optim_wrapper = dict(optimizer=dict(lr=5e-5))

# VL-LTR's baseline on ImageNet-LT: a linear classifier on CLIP's RN50, both trained like VL-LTR's
# stage 2, without any text, for 100 epochs.
_base_ = [
    '../_base_/models/clip_rn50.py',
    '../_base_/datasets/imagenet-lt_vlltr.py',
    '../_base_/schedules/vlltr_lgr_paper.py',
    '../_base_/default_runtime.py',
]

model = dict(head=dict(_delete_=True, type='LinearClsHead', num_classes=1000, in_channels=1024))
max_epochs = 100
train_cfg = dict(max_epochs=max_epochs)

# LIFT on iNaturalist 2018 with DINOv2's ViT-B/14, 20 epochs; no run of the paper.
_base_ = [
    '../_base_/models/lift_dinov2_vit-b14.py',
    '../_base_/datasets/inat18_lift.py',
    '../_base_/schedules/lift.py',
    '../_base_/class-means_runtime.py',
]

model = dict(backbone=dict(adapter=dict(num_classes=8142)), head=dict(num_classes=8142))
max_epochs = 20
train_cfg = dict(max_epochs=max_epochs, val_interval=max_epochs)

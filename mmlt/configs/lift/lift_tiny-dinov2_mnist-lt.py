# LIFT on MNIST-LT with a small ViT of DINOv2's form and random weights.
_base_ = [
    '../_base_/models/lift_dinov2_tiny-vit.py',
    '../_base_/datasets/mnist-lt.py',
    '../_base_/schedules/lift.py',
    '../_base_/class-means_runtime.py',
]

max_epochs = 20
train_cfg = dict(max_epochs=max_epochs, val_interval=5)
optim_wrapper = dict(optimizer=dict(lr=0.05))
# As the other tiny configs: cosine by iteration.
param_scheduler = [dict(type='CosineAnnealingLR', eta_min=0, by_epoch=True, convert_to_iter_based=True)]
auto_scale_lr = dict(base_batch_size=64)

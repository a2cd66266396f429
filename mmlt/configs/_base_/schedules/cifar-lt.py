# CIFAR-LT from scratch: SGD, lr 0.1, 5 epochs of warm-up, cosine to zero by iteration, 200 epochs.
max_epochs = 200
train_cfg = dict(by_epoch=True, max_epochs=max_epochs, val_interval=20)
val_cfg = dict()
test_cfg = dict()
optim_wrapper = dict(optimizer=dict(type='SGD', lr=0.1, momentum=0.9, weight_decay=5e-4))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.1, by_epoch=True, begin=0, end=5, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', eta_min=0, by_epoch=True, begin=5, convert_to_iter_based=True),
]
auto_scale_lr = dict(base_batch_size=128, enable=False)

# Wu et al. 2020: SGD, lr 0.02 for a batch of 32, 8 class-aware epochs, steps after the 5th and the 7th.
max_epochs = 8
train_cfg = dict(by_epoch=True, max_epochs=max_epochs, val_interval=max_epochs)
val_cfg = dict()
test_cfg = dict()
optim_wrapper = dict(optimizer=dict(type='SGD', lr=0.02, momentum=0.9, weight_decay=1e-4), clip_grad=dict(max_norm=35))
param_scheduler = [
    dict(type='LinearLR', start_factor=1 / 3, by_epoch=False, end=500),
    dict(type='MultiStepLR', milestones=[5, 7], by_epoch=True),
]
auto_scale_lr = dict(base_batch_size=32, enable=False)

# LT-Soups as published for CIFAR-100-LT: AdamW, lr 3e-5, 10 epochs, 20 steps of warm-up, cosine to a tenth by
# iteration, batch 128, averaged weights of decay 0.99. What is tested and merged are the averaged weights.
max_epochs = 10
train_cfg = dict(by_epoch=True, max_epochs=max_epochs, val_interval=max_epochs)
val_cfg = dict()
test_cfg = dict()
optim_wrapper = dict(optimizer=dict(type='AdamW', lr=3e-5, betas=(0.9, 0.999), weight_decay=0.01))
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-6, by_epoch=False, begin=0, end=20),
    dict(type='CosineAnnealingLR', eta_min_ratio=0.1, by_epoch=False, begin=20),
]
auto_scale_lr = dict(base_batch_size=128, enable=False)
custom_hooks = [dict(type='EMAHook', momentum=0.01, update_buffers=True)]

# VL-LTR stage 1 as published: AdamW, lr 5e-5 (RN50), weight decay for matrices only, 50 epochs; cosine by epoch,
# late by one, after 5 epochs of warm-up from 1e-6.
max_epochs = 50
train_cfg = dict(by_epoch=True, max_epochs=max_epochs, val_interval=10)
val_cfg = dict()
test_cfg = dict()
optim_wrapper = dict(
    constructor='mmlt.RatesOptimWrapperConstructor',
    optimizer=dict(type='AdamW', lr=5e-5, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.05),
)
param_scheduler = [dict(type='mmlt.EpochCosineLR', lag=1, warmup_epochs=5, warmup_lr=1e-6, eta_min=0)]
auto_scale_lr = dict(base_batch_size=2048, enable=False)

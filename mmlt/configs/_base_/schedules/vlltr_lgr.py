# VL-LTR stage 2 as published: AdamW, lr 1e-3 for the MLP (and for the image tower, where it is trained), 1e-6 for
# what attends to the texts; weight decay for matrices only; 50 epochs, cosine by epoch, late by one, no warm-up.
max_epochs = 50
train_cfg = dict(by_epoch=True, max_epochs=max_epochs, val_interval=5)
val_cfg = dict()
test_cfg = dict()
optim_wrapper = dict(
    constructor='mmlt.RatesOptimWrapperConstructor',
    optimizer=dict(type='AdamW', lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.05),
    paramwise_cfg=dict(rates=[dict(names=['head.norm_query', 'head.norm_key', 'head.query', 'head.key'], lr=1e-6)]),
)
param_scheduler = [dict(type='mmlt.EpochCosineLR', lag=1, eta_min=0)]
auto_scale_lr = dict(base_batch_size=1024, enable=False)

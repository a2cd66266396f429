# Stage 2 as the published code has it, on MNIST-LT: the image tower frozen, mixup or cutmix, label smoothing, two
# learning rates, weight decay for matrices only, cosine by epoch, 0.2 P_I + 0.8 P_T to test. Stage 1 is that of
# vlltr_tiny_mnist-lt.py.
_base_ = './vlltr_tiny_mnist-lt.py'

model = dict(
    backbone=dict(frozen=True),
    head=dict(query_bias=False, fusion=0.2, loss=dict(type='LabelSmoothLoss', label_smooth_val=0.1, mode='original')),
    data_preprocessor=dict(
        num_classes=10,
        batch_augments=dict(augments=[dict(type='Mixup', alpha=0.8), dict(type='CutMix', alpha=1.0)], probs=[0.5, 0.5]),
    ),
)
max_epochs = 50
train_cfg = dict(max_epochs=max_epochs, val_interval=10)
optim_wrapper = dict(
    constructor='mmlt.RatesOptimWrapperConstructor',
    optimizer=dict(lr=1e-3),
    paramwise_cfg=dict(rates=[dict(names=['head.norm_query', 'head.norm_key', 'head.query', 'head.key'], lr=1e-6)]),
)
param_scheduler = [dict(type='mmlt.EpochCosineLR', lag=1, eta_min=0)]

# ResNet-18 at a quarter of its width, from random weights, with MMPretrain's multi-label head.
model = dict(
    type='ImageClassifier',
    backbone=dict(type='ResNet', depth=18, stem_channels=16, base_channels=16, out_indices=(3,)),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(
        type='MultiLabelLinearClsHead',
        num_classes=10,
        in_channels=128,
        # A mean over classes, as DB's; MMPretrain's BCE and ASL are sums.
        loss=dict(type='CrossEntropyLoss', use_sigmoid=True, loss_weight=1 / 10),
    ),
    data_preprocessor=dict(mean=[33.3] * 3, std=[78.6] * 3, to_rgb=False),
)

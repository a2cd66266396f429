# The ResNet-32 of the CIFAR-LT benchmarks with a linear classifier.
model = dict(
    type='ImageClassifier',
    backbone=dict(type='mmlt.CIFARResNet', depth=32),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(type='LinearClsHead', num_classes=100, in_channels=64),
    # CIFAR's mean and standard deviation, RGB.
    data_preprocessor=dict(
        type='ClsDataPreprocessor', mean=[125.307, 122.961, 113.8575], std=[51.5865, 50.847, 51.255], to_rgb=True
    ),
)

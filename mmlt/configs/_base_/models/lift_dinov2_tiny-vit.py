# LIFT with a small ViT of DINOv2's form, with registers and random weights: it shows that all runs, not what it can.
model = dict(
    type='ImageClassifier',
    backbone=dict(
        type='mmlt.TimmViT',
        model='vit_small_patch14_reg4_dinov2',
        image_size=32,
        pooling='cls+avg',
        options=dict(depth=3, embed_dim=64, num_heads=4, patch_size=4),
        adapter=dict(type='mmlt.AdaptFormer', bottleneck=16)),
    head=dict(
        type='mmlt.CosineClsHead',
        num_classes=10,
        in_channels=128,
        logit_scale=25.0,
        init='class_means',
        loss=dict(type='mmlt.LogitAdjustedLoss')),
    data_preprocessor=dict(
        type='mmlt.CLIPDataPreprocessor', mean=[33.3] * 3, std=[78.6] * 3, to_rgb=False))

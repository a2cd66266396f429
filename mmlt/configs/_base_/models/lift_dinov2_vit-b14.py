# LIFT with DINOv2's ViT-B/14, by timm: adapters beside the MLPs of the frozen tower, a cosine head that starts from
# class means, since there is no text tower. `num_classes` of the adapters and of the head are the dataset's.
model = dict(
    type='ImageClassifier',
    backbone=dict(
        type='mmlt.TimmViT',
        model='vit_base_patch14_dinov2',
        pretrained='lvd142m',
        image_size=224,
        pooling='cls',
        compile='auto',
        adapter=dict(type='mmlt.AdaptFormer', num_classes=1000, init='normal')),
    head=dict(
        type='mmlt.CosineClsHead',
        num_classes=1000,
        in_channels=768,
        logit_scale=25.0,
        init='class_means',
        loss=dict(type='mmlt.LogitAdjustedLoss')),
    # ImageNet's statistics, as DINOv2 has them
    data_preprocessor=dict(
        type='mmlt.CLIPDataPreprocessor', mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375]))

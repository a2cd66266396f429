# LIFT with the tiny ViT, whose weights come from configs/clip/clip_tiny-vit_printed-characters.py.
# LIFT's rule for the width of the adapters gives 1 for ten classes and three blocks.
stages = dict(
    clip=dict(
        config='../clip/clip_tiny-vit_printed-characters.py', work_dir='work_dirs/clip_tiny-vit_printed-characters'
    )
)

model = dict(
    type='ImageClassifier',
    backbone=dict(
        type='mmlt.OpenCLIPVision',
        model='mmlt-tiny-vit-p4',
        pretrained='{stage:clip}/open_clip.safetensors',
        projection=False,
        adapter=dict(type='mmlt.AdaptFormer', bottleneck=16),
    ),
    head=dict(
        type='mmlt.CosineClsHead',
        num_classes=10,
        in_channels=64,
        logit_scale=25.0,
        init='text',
        text=dict(type='mmlt.OpenCLIPText', model='mmlt-tiny-vit-p4', pretrained='{stage:clip}/open_clip.safetensors'),
        templates='a photo of the {}',
        loss=dict(type='mmlt.LogitAdjustedLoss'),
    ),
    data_preprocessor=dict(type='mmlt.CLIPDataPreprocessor', mean=[33.3] * 3, std=[78.6] * 3, to_rgb=False),
)

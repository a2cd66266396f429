# LIFT with OpenAI's ViT-B/16: adapters beside the MLPs of the frozen tower, a cosine head that starts from texts.
# `num_classes` of the adapters and of the head are the dataset's.
model = dict(
    type='ImageClassifier',
    backbone=dict(
        type='mmlt.OpenCLIPVision',
        model='ViT-B-16',
        pretrained='openai',
        quick_gelu=True,
        projection=False,
        compile='auto',
        adapter=dict(type='mmlt.AdaptFormer', num_classes=1000, init='normal'),
    ),
    head=dict(
        type='mmlt.CosineClsHead',
        num_classes=1000,
        in_channels=768,
        logit_scale=25.0,
        init='text',
        text=dict(type='mmlt.OpenCLIPText', model='ViT-B-16', pretrained='openai', quick_gelu=True),
        templates='clip',
        loss=dict(type='mmlt.LogitAdjustedLoss'),
    ),
    data_preprocessor=dict(type='mmlt.CLIPDataPreprocessor'),
)

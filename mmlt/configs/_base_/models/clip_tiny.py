# The tiny CLIP (mmlt/models/open_clip_configs/mmlt-tiny-rn.json) as an image-text classifier.
# Its weights come from configs/clip/clip_tiny_printed-characters.py.
stages = dict(
    clip=dict(config='../clip/clip_tiny_printed-characters.py', work_dir='work_dirs/clip_tiny_printed-characters')
)

model = dict(
    type='ImageClassifier',
    backbone=dict(
        type='mmlt.OpenCLIPVision',
        model='mmlt-tiny-rn',
        pretrained='{stage:clip}/open_clip.safetensors',
        norm_eval=True,
    ),
    head=dict(
        type='mmlt.TextClsHead',
        text=dict(type='mmlt.OpenCLIPText', model='mmlt-tiny-rn', pretrained='{stage:clip}/open_clip.safetensors'),
        templates='a photo of the {}',
        logit_scale=50.0,
    ),
    data_preprocessor=dict(type='mmlt.CLIPDataPreprocessor', mean=[33.3] * 3, std=[78.6] * 3, to_rgb=False),
)

# VL-LTR stage 1, class-wise visual-linguistic pretraining, with the tiny CLIP as student and as teacher.
stages = dict(
    clip=dict(config='../clip/clip_tiny_printed-characters.py', work_dir='work_dirs/clip_tiny_printed-characters')
)

model = dict(
    type='mmlt.CVLP',
    backbone=dict(
        type='mmlt.OpenCLIPVision',
        model='mmlt-tiny-rn',
        pretrained='{stage:clip}/open_clip.safetensors',
        norm_eval=True,
    ),
    text=dict(type='mmlt.OpenCLIPText', model='mmlt-tiny-rn', pretrained='{stage:clip}/open_clip.safetensors'),
    texts=dict(type='mmlt.ClassTexts', templates='a photo of the {}'),
    teacher=dict(model='mmlt-tiny-rn', pretrained='{stage:clip}/open_clip.safetensors'),
    templates='a photo of the {}',
    data_preprocessor=dict(type='mmlt.CLIPDataPreprocessor', mean=[33.3] * 3, std=[78.6] * 3, to_rgb=False),
)

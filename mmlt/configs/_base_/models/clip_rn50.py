# OpenAI's CLIP with a ResNet-50 as an image-text classifier.
# QuickGELU is the activation of these weights. It is named because BALLAD's phase B and random
# initialisation build the same towers with pretrained=None. Other weights: configs/clip/README.md.
model = dict(
    type='ImageClassifier',
    backbone=dict(type='mmlt.OpenCLIPVision', model='RN50', pretrained='openai', quick_gelu=True, compile='auto'),
    head=dict(
        type='mmlt.TextClsHead',
        text=dict(type='mmlt.OpenCLIPText', model='RN50', pretrained='openai', quick_gelu=True, compile='auto'),
        templates='clip',
        logit_scale=100.0,
    ),
    data_preprocessor=dict(type='mmlt.CLIPDataPreprocessor'),
)

# VL-LTR stage 1, class-wise visual-linguistic pretraining, with OpenAI's CLIP RN50 as student and as teacher.
# QuickGELU is named because random initialisation builds the same towers with pretrained=None.
model = dict(
    type='mmlt.CVLP',
    backbone=dict(type='mmlt.OpenCLIPVision', model='RN50', pretrained='openai', quick_gelu=True),
    text=dict(type='mmlt.OpenCLIPText', model='RN50', pretrained='openai', quick_gelu=True),
    texts=dict(type='mmlt.ClassTexts', templates='imagenet'),
    teacher=dict(model='RN50', pretrained='openai', quick_gelu=True),
    ratio=0.5,
    loss=dict(type='mmlt.CCLLoss'),
    distill_loss=dict(type='mmlt.ImageTextDistillLoss'),
    data_preprocessor=dict(type='mmlt.CLIPDataPreprocessor'))

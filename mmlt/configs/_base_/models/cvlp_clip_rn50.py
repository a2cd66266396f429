# VL-LTR stage 1 as published, with OpenAI's CLIP RN50 as student and as teacher: the student in eval mode, the mean of
# both directions of the contrastive loss with label smoothing, distillation over whole rows, CLIP's own temperatures.
# QuickGELU is named because random initialisation builds the same towers with pretrained=None.
model = dict(
    type='mmlt.CVLP',
    backbone=dict(
        type='mmlt.OpenCLIPVision', model='RN50', pretrained='openai', quick_gelu=True, norm_eval=True, compile='auto'
    ),
    text=dict(type='mmlt.OpenCLIPText', model='RN50', pretrained='openai', quick_gelu=True, compile='auto'),
    texts=dict(type='mmlt.ClassTexts', templates='imagenet'),
    teacher=dict(model='RN50', pretrained='openai', quick_gelu=True, compile='auto'),
    loss_ratio=0.5,
    init_temperature=None,
    teacher_temperature='own',
    loss=dict(type='mmlt.CCLLoss', form='mean', label_smoothing=0.1),
    distill_loss=dict(type='mmlt.ImageTextDistillLoss', form='full'),
    data_preprocessor=dict(type='mmlt.CLIPDataPreprocessor'),
)

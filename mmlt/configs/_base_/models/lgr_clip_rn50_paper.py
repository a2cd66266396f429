# VL-LTR stage 2 as its paper's text has it: the image tower of stage 1 and the LGR head are both trained.
# The weights are in stage 1's checkpoint, the anchor sentences beside it; the config's `stages` names both.
model = dict(
    type='ImageClassifier',
    backbone=dict(type='mmlt.OpenCLIPVision', model='RN50', quick_gelu=True, compile='auto'),
    head=dict(type='mmlt.LGRHead', num_classes=1000, in_channels=1024, anchors='{stage:cvlp}/anchors.safetensors'),
    data_preprocessor=dict(type='mmlt.CLIPDataPreprocessor'),
)

# VL-LTR stage 2: the image tower of stage 1 with the LGR head.
# The weights are in stage 1's checkpoint, the anchor sentences beside it; the config's `stages` names both.
model = dict(
    type='ImageClassifier',
    backbone=dict(type='mmlt.OpenCLIPVision', model='mmlt-tiny-rn', norm_eval=True),
    head=dict(type='mmlt.LGRHead', num_classes=10, in_channels=128, anchors='{stage:cvlp}/anchors.safetensors'),
    data_preprocessor=dict(type='mmlt.CLIPDataPreprocessor', mean=[33.3] * 3, std=[78.6] * 3, to_rgb=False),
)

# VL-LTR stage 2 as published: the image tower of stage 1 frozen, the LGR head trained on mixup or cutmix (one of them
# in every batch) with smoothed labels, 0.2 P_I + 0.8 P_T to test.
# The weights are in stage 1's checkpoint, the anchor sentences beside it; the config's `stages` names both.
model = dict(
    type='ImageClassifier',
    backbone=dict(
        type='mmlt.OpenCLIPVision', model='RN50', quick_gelu=True, norm_eval=True, frozen=True, compile='auto'
    ),
    head=dict(
        type='mmlt.LGRHead',
        num_classes=1000,
        in_channels=1024,
        anchors='{stage:cvlp}/anchors.safetensors',
        query_bias=False,
        fusion=0.2,
        loss=dict(type='LabelSmoothLoss', label_smooth_val=0.1, mode='original'),
    ),
    data_preprocessor=dict(
        type='mmlt.CLIPDataPreprocessor',
        num_classes=1000,
        batch_augments=dict(augments=[dict(type='Mixup', alpha=0.8), dict(type='CutMix', alpha=1.0)], probs=[0.5, 0.5]),
    ),
)

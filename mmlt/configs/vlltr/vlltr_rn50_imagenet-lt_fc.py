# The FC head of VL-LTR's Table 4 on ImageNet-LT: a linear classifier in place of the LGR head.
_base_ = './vlltr_rn50_imagenet-lt.py'

stages = dict(cvlp=dict(load_from='backbone'))
model = dict(
    head=dict(
        _delete_=True,
        type='LinearClsHead',
        num_classes=1000,
        in_channels=1024,
        loss=dict(type='LabelSmoothLoss', label_smooth_val=0.1, mode='original'),
    )
)
optim_wrapper = dict(paramwise_cfg=dict(rates=[]))

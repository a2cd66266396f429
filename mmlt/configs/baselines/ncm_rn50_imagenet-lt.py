# Nearest class mean (Kang et al. 2020) on ImageNet-LT: cross entropy, then the class means of its features.
_base_ = './tau-norm_rn50_imagenet-lt.py'

stages = dict(ce=dict(load_from='backbone'))
model = dict(head=dict(_delete_=True, type='mmlt.NCMHead', num_classes=1000, in_channels=1024))
default_hooks = dict(
    fit_head=dict(
        type='mmlt.FitHeadHook',
        dataset=dict(
            type=_base_.dataset_type,
            data_root=_base_.data_root,
            ann_file='ImageNet_LT_train.txt',
            classes=_base_.classes,
        ),
    )
)

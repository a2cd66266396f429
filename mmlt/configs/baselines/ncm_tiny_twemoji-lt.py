# Nearest class mean (Kang et al. 2020) on Twemoji-LT: cross entropy, then the class means of its features.
_base_ = './tau-norm_tiny_twemoji-lt.py'

stages = dict(ce=dict(load_from='backbone'))
model = dict(head=dict(_delete_=True, type='mmlt.NCMHead', num_classes=42, in_channels=128))
default_hooks = dict(
    fit_head=dict(
        type='mmlt.FitHeadHook',
        dataset=dict(type='mmlt.TwemojiLT', split='train'),
        pipeline=_base_.test_pipeline,  # with --tta, too
    )
)

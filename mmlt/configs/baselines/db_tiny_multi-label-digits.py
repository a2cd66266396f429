# Distribution-balanced loss (Wu et al. 2020) with class-aware sampling on the multi-label digits.
# The settings are those of the published code for VOC-LT.
_base_ = './bce_tiny_multi-label-digits.py'

model = dict(
    head=dict(
        loss=dict(
            _delete_=True,
            type='mmlt.DistributionBalancedLoss',
            mu=0.3,
            neg_scale=5.0,
            kappa=0.05 / 5,
            gamma=2.0,
            loss_weight=2.0,
        )
    )
)
# An epoch has as many draws as the train split has canvases.
train_dataloader = dict(
    sampler=dict(_delete_=True, type='mmlt.ClassAwareSampler', samples_per_class=3, num_samples=1000)
)

# Distribution-balanced loss with class-aware sampling on VOC-LT, settings of the published code (Wu et al. 2020).
# Not run by us: the data were not at hand. Their figures also rest on a neck of 256 with dropout.
_base_ = [
    '../_base_/models/resnet50_multi-label.py',
    '../_base_/datasets/voc-lt.py',
    '../_base_/schedules/multi-label_sgd.py',
    '../_base_/default_runtime.py',
]

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
# A quarter of the largest class times the number of classes.
train_dataloader = dict(
    sampler=dict(_delete_=True, type='mmlt.ClassAwareSampler', samples_per_class=3, num_samples=3875)
)

# iNaturalist 2018 with the transforms of LIFT; a batch of 128 is that of one GPU.
_base_ = ['./inat18.py', './lift_pipelines.py']

train_dataloader = dict(batch_size=128, dataset=dict(pipeline=_base_.lift_train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=_base_.lift_test_pipeline))
test_dataloader = dict(dataset=dict(pipeline=_base_.lift_test_pipeline))

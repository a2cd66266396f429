# iNaturalist 2018 at 384 px; a test resizes to 438, in the same proportion as 256 to 224.
_base_ = './inat18_vlltr.py'

train_pipeline = _base_.train_pipeline
train_pipeline[1].scale = 384
test_pipeline = _base_.test_pipeline
test_pipeline[1].scale = 438
test_pipeline[2].crop_size = 384

train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader

# CIFAR-100-LT with the transforms of LIFT; the pictures of 32 px are enlarged. A batch of 128 is that of one GPU.
_base_ = ['./cifar100-lt.py', './lift_pipelines.py']

# In place of the loading of a file.
train_pipeline = [*_base_.rgb_to_bgr, *_base_.lift_train_pipeline[1:]]
test_pipeline = [*_base_.rgb_to_bgr, *_base_.lift_test_pipeline[1:]]
tta_pipeline = [*_base_.rgb_to_bgr, *_base_.tta_pipeline[1:]]

train_dataloader = dict(batch_size=128, dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader

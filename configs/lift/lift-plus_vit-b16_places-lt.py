# LIFT+ on Places-LT: half the epochs, twice the learning rate, and crops whose smallest size grows.
_base_ = './lift_vit-b16_places-lt.py'

train_dataloader = dict(dataset=dict(pipeline=_base_.lift_plus_train_pipeline))
max_epochs = 5
train_cfg = dict(max_epochs=max_epochs, val_interval=max_epochs)
optim_wrapper = dict(optimizer=dict(lr=0.02))

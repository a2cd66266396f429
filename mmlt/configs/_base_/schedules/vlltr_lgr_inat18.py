# VL-LTR stage 2 on iNaturalist as published: lr 2e-5, 360 epochs.
_base_ = './vlltr_lgr.py'

max_epochs = 360
train_cfg = dict(max_epochs=max_epochs, val_interval=20)
optim_wrapper = dict(optimizer=dict(lr=2e-5))

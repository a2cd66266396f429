# VL-LTR stage 1 on iNaturalist as published: lr 5e-4 (RN50), down to 1e-5, 100 epochs.
_base_ = './vlltr_cvlp.py'

max_epochs = 100
train_cfg = dict(max_epochs=max_epochs)
optim_wrapper = dict(optimizer=dict(lr=5e-4))
param_scheduler = [dict(type='mmlt.EpochCosineLR', lag=1, warmup_epochs=5, warmup_lr=1e-6, eta_min=1e-5)]

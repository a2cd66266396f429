# VL-LTR stage 1 on iNaturalist: lr 5e-4, 100 epochs.
_base_ = './vlltr_cvlp.py'

max_epochs = 100
train_cfg = dict(max_epochs=max_epochs)
optim_wrapper = dict(optimizer=dict(lr=5e-4))

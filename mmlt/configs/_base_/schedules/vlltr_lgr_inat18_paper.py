# VL-LTR stage 2 on iNaturalist as its paper's text has it: lr 2e-5, 360 epochs.
_base_ = './vlltr_lgr_paper.py'

max_epochs = 360
train_cfg = dict(max_epochs=max_epochs, val_interval=20)
optim_wrapper = dict(optimizer=dict(lr=2e-5))

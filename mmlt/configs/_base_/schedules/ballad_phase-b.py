# BALLAD phase B as published: SGD, lr 0.2, 10 epochs, cosine by epoch, stepped before each epoch.
max_epochs = 10
train_cfg = dict(by_epoch=True, max_epochs=max_epochs, val_interval=1)
val_cfg = dict()
test_cfg = dict()
optim_wrapper = dict(optimizer=dict(type='SGD', lr=0.2, momentum=0.9, weight_decay=5e-4))
param_scheduler = [dict(type='mmlt.EpochCosineLR', lag=-1, eta_min=0)]
auto_scale_lr = dict(base_batch_size=512, enable=False)

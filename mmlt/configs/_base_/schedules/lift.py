# LIFT as published: SGD, lr 0.01, 10 epochs, cosine by epoch, batch 128.
max_epochs = 10
train_cfg = dict(by_epoch=True, max_epochs=max_epochs, val_interval=max_epochs)
val_cfg = dict()
test_cfg = dict()
optim_wrapper = dict(optimizer=dict(type='SGD', lr=0.01, momentum=0.9, weight_decay=5e-4))
param_scheduler = [dict(type='mmlt.EpochCosineLR', eta_min=0)]
auto_scale_lr = dict(base_batch_size=128, enable=False)

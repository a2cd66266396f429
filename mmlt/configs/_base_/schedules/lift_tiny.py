# LIFT for the tiny models: 20 epochs, a larger rate, batch 64; as the other tiny configs, cosine by iteration.
_base_ = './lift.py'

max_epochs = 20
train_cfg = dict(max_epochs=max_epochs, val_interval=5)
optim_wrapper = dict(optimizer=dict(lr=0.05))
param_scheduler = [dict(type='CosineAnnealingLR', eta_min=0, by_epoch=True, convert_to_iter_based=True)]
auto_scale_lr = dict(base_batch_size=64)

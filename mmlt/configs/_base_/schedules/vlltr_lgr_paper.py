# VL-LTR stage 2 as its paper's text has it: AdamW, lr 1e-3, 50 epochs, cosine to zero by iteration.
max_epochs = 50
train_cfg = dict(by_epoch=True, max_epochs=max_epochs, val_interval=5)
val_cfg = dict()
test_cfg = dict()
optim_wrapper = dict(optimizer=dict(type='AdamW', lr=1e-3, weight_decay=0.05))
param_scheduler = [dict(type='CosineAnnealingLR', eta_min=0, by_epoch=True, convert_to_iter_based=True)]
auto_scale_lr = dict(base_batch_size=1024, enable=False)

# VL-LTR stage 1 as its paper's text has it: AdamW, lr 5e-5, 50 epochs, cosine to zero by iteration.
max_epochs = 50
train_cfg = dict(by_epoch=True, max_epochs=max_epochs, val_interval=10)
val_cfg = dict()
test_cfg = dict()
optim_wrapper = dict(optimizer=dict(type='AdamW', lr=5e-5, weight_decay=0.05))
param_scheduler = [dict(type='CosineAnnealingLR', eta_min=0, by_epoch=True, convert_to_iter_based=True)]
auto_scale_lr = dict(base_batch_size=2048, enable=False)

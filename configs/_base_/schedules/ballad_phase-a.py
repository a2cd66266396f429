# BALLAD phase A: SGD, lr 1e-5 for both towers, 50 epochs, cosine to zero by iteration.
max_epochs = 50
train_cfg = dict(by_epoch=True, max_epochs=max_epochs, val_interval=5)
val_cfg = dict()
test_cfg = dict()
optim_wrapper = dict(optimizer=dict(type='SGD', lr=1e-5, momentum=0.9, weight_decay=5e-4))
param_scheduler = [
    dict(type='CosineAnnealingLR', eta_min=0, by_epoch=True, convert_to_iter_based=True)
]
auto_scale_lr = dict(base_batch_size=512, enable=False)

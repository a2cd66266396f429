# The tiny CLIP with a ViT as image tower (mmlt/models/open_clip_configs/mmlt-tiny-vit-p4.json), 28 px.
_base_ = './clip_tiny_printed-characters.py'

model = dict(backbone=dict(model='mmlt-tiny-vit-p4'), text=dict(model='mmlt-tiny-vit-p4'))

# No padding: the digits are 28 px.
train_dataloader = dict(
    batch_size=128,
    dataset=dict(pipeline=[dict(type='PackInputs', algorithm_keys=('caption',))]))
val_dataloader = dict(dataset=dict(pipeline=[dict(type='PackInputs')]))
test_dataloader = val_dataloader

max_epochs = 6
train_cfg = dict(max_epochs=max_epochs, val_interval=max_epochs)
optim_wrapper = dict(optimizer=dict(lr=2e-3))

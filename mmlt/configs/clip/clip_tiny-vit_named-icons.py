# The tiny CLIP with a ViT as image tower, pretrained on icons.
_base_ = './clip_tiny_named-icons.py'

model = dict(backbone=dict(model='mmlt-tiny-vit-p4'), text=dict(model='mmlt-tiny-vit-p4'))

train_dataloader = dict(batch_size=128)
max_epochs = 12
train_cfg = dict(max_epochs=max_epochs, val_interval=max_epochs)
optim_wrapper = dict(optimizer=dict(lr=2e-3))

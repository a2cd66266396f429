# CUE on MNIST-LT with the tiny ViT. Of ten classes fewer are related than of a hundred: two in place of CUE's five, and
# digits that look alike to us as neighbours.
_base_ = './lift_tiny-vit_mnist-lt.py'

neighbours = {
    'digit zero': ['digit six'],
    'digit one': ['digit seven'],
    'digit three': ['digit five', 'digit eight'],
    'digit four': ['digit nine'],
    'digit five': ['digit three'],
    'digit six': ['digit zero'],
    'digit seven': ['digit one', 'digit nine'],
    'digit eight': ['digit three'],
    'digit nine': ['digit four', 'digit seven'],
}
model = dict(
    type='mmlt.CUEClassifier',
    teacher=dict(
        model='mmlt-tiny-vit-p4',
        pretrained='{stage:clip}/open_clip.safetensors',
        templates='a photo of the {}'),
    head=dict(loss=dict(_delete_=True, type='mmlt.CUELoss', neighbours=neighbours, top_k=2)))
del neighbours

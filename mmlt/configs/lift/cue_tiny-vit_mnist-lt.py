# CUE on MNIST-LT with the tiny ViT. Of ten classes fewer are related than of a hundred: two in place of CUE's five, and
# digits that look alike to us as neighbours.
_base_ = './lift_tiny-vit_mnist-lt.py'

neighbours = dict(
    digit_zero=['digit six'],
    digit_one=['digit seven'],
    digit_three=['digit five', 'digit eight'],
    digit_four=['digit nine'],
    digit_five=['digit three'],
    digit_six=['digit zero'],
    digit_seven=['digit one', 'digit nine'],
    digit_eight=['digit three'],
    digit_nine=['digit four', 'digit seven'])
model = dict(
    type='mmlt.CUEClassifier',
    teacher=dict(
        model='mmlt-tiny-vit-p4',
        pretrained='{stage:clip}/open_clip.safetensors',
        templates='a photo of the {}'),
    head=dict(loss=dict(_delete_=True, type='mmlt.CUELoss', neighbours=neighbours, top_k=2)))
del neighbours

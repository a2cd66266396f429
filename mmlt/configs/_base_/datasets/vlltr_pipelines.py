# VL-LTR's transforms: DeiT's augmentation (RandAugment, random erasing, no mixup) with CLIP's mean
# and deviation in BGR; a test resizes to 256 px and crops 224.
vlltr_train_pipeline = [
    dict(type='mmlt.LoadPicture'),
    dict(type='mmlt.RandomResizedCrop', scale=224, backend='pillow', interpolation='bicubic'),
    dict(type='mmlt.RandomFlip', prob=0.5, direction='horizontal'),
    dict(
        type='mmlt.RandAugment',
        policies='timm_increasing',
        num_policies=2,
        total_level=10,
        magnitude_level=9,
        magnitude_std=0.5,
        hparams=dict(pad_val=[104, 117, 123], interpolation='bicubic'),
    ),
    dict(
        type='RandomErasing',
        erase_prob=0.25,
        mode='rand',
        min_area_ratio=0.02,
        max_area_ratio=1 / 3,
        fill_color=[104.1, 116.7, 122.8],
        fill_std=[70.3, 66.6, 68.5],
    ),
    dict(type='PackInputs'),
]
vlltr_test_pipeline = [
    dict(type='mmlt.LoadPicture'),
    dict(type='ResizeEdge', scale=256, edge='short', backend='pillow', interpolation='bicubic'),
    dict(type='CenterCrop', crop_size=224),
    dict(type='PackInputs'),
]

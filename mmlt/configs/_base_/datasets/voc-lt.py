# VOC-LT (Wu et al. 2020): 1,142 training images of VOC 2012, 20 classes; VOC 2007's 4,952 to test.
# Beside VOC2007/ and VOC2012/ lies longtail2012/ of the authors' repository.
_base_ = './multi-label_pictures.py'

data_root = 'data/VOCdevkit/'
stats = dict(class_freq='longtail2012/class_freq.pkl', class_split='longtail2012/class_split.pkl')

train_dataloader = dict(
    dataset=dict(
        data_root=data_root,
        ann_file='VOC2012/Annotations',
        img_ids='longtail2012/img_id.txt',
        data_prefix='VOC2012/JPEGImages',
        **stats,
    )
)
val_dataloader = dict(
    dataset=dict(
        data_root=data_root,
        ann_file='VOC2007/Annotations',
        img_ids='VOC2007/ImageSets/Main/test.txt',
        data_prefix='VOC2007/JPEGImages',
        **stats,
    )
)
test_dataloader = val_dataloader

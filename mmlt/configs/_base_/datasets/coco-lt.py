# COCO-LT (Wu et al. 2020): 1,909 training images of COCO 2017, 80 classes; the 5,000 of val2017 to test.
# Beside train2017/ and val2017/ lies longtail2017/ of the authors' repository; its img_id.pkl is a text.
_base_ = './multi-label_pictures.py'

data_root = 'data/coco/'
stats = dict(class_freq='longtail2017/class_freq.pkl', class_split='longtail2017/class_split.pkl')

train_dataloader = dict(
    dataset=dict(
        data_root=data_root,
        ann_file='annotations/instances_train2017.json',
        img_ids='longtail2017/img_id.pkl',
        data_prefix='train2017',
        **stats,
    )
)
val_dataloader = dict(
    dataset=dict(data_root=data_root, ann_file='annotations/instances_val2017.json', data_prefix='val2017', **stats)
)
test_dataloader = val_dataloader

# MIML: 2,000 images of five scenes (desert, mountains, sea, sunset, trees).
# The published data are a Matlab file; make lists of it: `path label label ...` a line, labels from 0.
_base_ = './multi-label_pictures.py'

data_root = 'data/miml/'
classes = 'classes.txt'

train_dataloader = dict(dataset=dict(data_root=data_root, ann_file='train.txt', classes=classes, data_prefix='images'))
val_dataloader = dict(
    dataset=dict(
        data_root=data_root, ann_file='test.txt', train_ann_file='train.txt', classes=classes, data_prefix='images'
    )
)
test_dataloader = val_dataloader

# NUS-WIDE-SCENE: the 33 scene concepts of NUS-WIDE, named in classes.txt.
# The tables have a column `image` and one of 0 and 1 for each concept; others than the 33 may be in them.
_base_ = './multi-label_pictures.py'

data_root = 'data/nus-wide/'
classes = 'classes.txt'

train_dataloader = dict(dataset=dict(data_root=data_root, ann_file='train.csv', classes=classes, data_prefix='images'))
val_dataloader = dict(
    dataset=dict(
        data_root=data_root, ann_file='test.csv', train_ann_file='train.csv', classes=classes, data_prefix='images'
    )
)
test_dataloader = val_dataloader

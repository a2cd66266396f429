# Places-LT: 62,500 training images, 4,980 down to 5 a class; 36,500 to test.
# The three lists and Places365's categories_places365.txt lie in data_root.
_base_ = './clip_pictures.py'

data_root = 'data/places/'
classes = 'categories_places365.txt'

train_dataloader = dict(dataset=dict(data_root=data_root, ann_file='Places_LT_train.txt', classes=classes))
val_dataloader = dict(
    dataset=dict(
        data_root=data_root, ann_file='Places_LT_val.txt', train_ann_file='Places_LT_train.txt', classes=classes
    )
)
test_dataloader = dict(
    dataset=dict(
        data_root=data_root, ann_file='Places_LT_test.txt', train_ann_file='Places_LT_train.txt', classes=classes
    )
)

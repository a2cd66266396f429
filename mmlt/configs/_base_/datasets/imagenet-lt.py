# ImageNet-LT: 115,846 training images, 1,280 down to 5 a class; ImageNet's 50,000 to test.
# The three lists lie in data_root.
_base_ = './clip_pictures.py'

data_root = 'data/imagenet/'
classes = 'imagenet'

train_dataloader = dict(dataset=dict(data_root=data_root, ann_file='ImageNet_LT_train.txt', classes=classes))
val_dataloader = dict(
    dataset=dict(
        data_root=data_root, ann_file='ImageNet_LT_val.txt', train_ann_file='ImageNet_LT_train.txt', classes=classes
    )
)
test_dataloader = dict(
    dataset=dict(
        data_root=data_root, ann_file='ImageNet_LT_test.txt', train_ann_file='ImageNet_LT_train.txt', classes=classes
    )
)

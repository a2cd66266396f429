# The KNN head of VL-LTR's Table 4 on ImageNet-LT: the anchor sentences nearest to an image vote for their classes.
_base_ = './vlltr_rn50_imagenet-lt.py'

stages = dict(cvlp=dict(load_from='backbone'))
model = dict(
    head=dict(
        _delete_=True,
        type='mmlt.AnchorKNNHead',
        num_classes=1000,
        in_channels=1024,
        anchors='{stage:cvlp}/anchors.safetensors',
    )
)

# Nothing is trained here.
train_cfg = None
train_dataloader = None
optim_wrapper = None
param_scheduler = None

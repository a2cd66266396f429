# The KNN head of VL-LTR's Table 4 on MNIST-LT: the anchor sentences nearest to an image vote for their classes.
_base_ = './vlltr_tiny_mnist-lt.py'

stages = dict(cvlp=dict(load_from='backbone'))
model = dict(head=dict(type='mmlt.AnchorKNNHead'))

# Nothing is trained here.
train_cfg = None
train_dataloader = None
optim_wrapper = None
param_scheduler = None

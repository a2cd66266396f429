# The FC head of VL-LTR's Table 4 on Twemoji-LT: a linear classifier on the image tower of stage 1, both trained.
_base_ = './vlltr_tiny_twemoji-lt.py'

stages = dict(cvlp=dict(load_from='backbone'))
model = dict(head=dict(_delete_=True, type='LinearClsHead', num_classes=42, in_channels=128))

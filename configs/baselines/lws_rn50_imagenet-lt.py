# Learnable weight scaling (Kang et al. 2020) on ImageNet-LT: cross entropy, then one factor for every
# class vector, with class-balanced sampling.
_base_ = './crt_rn50_imagenet-lt.py'

stages = dict(ce=dict(load_from=True))
model = dict(head=dict(type='mmlt.LWSHead'))

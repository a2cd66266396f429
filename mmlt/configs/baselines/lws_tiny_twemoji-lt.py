# Learnable weight scaling (Kang et al. 2020) on Twemoji-LT: cross entropy, then one factor for every
# class vector, with class-balanced sampling.
_base_ = './crt_tiny_twemoji-lt.py'

stages = dict(ce=dict(load_from=True))
model = dict(head=dict(type='mmlt.LWSHead'))
# The logarithms of the factors have to move by about one within 400 steps.
optim_wrapper = dict(optimizer=dict(lr=0.05))

# The matched control of MORE: the same split weights, no penalty.
_base_ = ['./more_tiny_twemoji-lt.py']

model = dict(peak=0.0)

# The matched control of MORE: the same split weights, no penalty.
_base_ = ['./more_rn50_miml.py']

model = dict(peak=0.0)

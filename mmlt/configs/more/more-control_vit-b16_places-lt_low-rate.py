# The matched control of MORE: the same split weights, no penalty.
_base_ = ['./more_vit-b16_places-lt_low-rate.py']

model = dict(peak=0.0)

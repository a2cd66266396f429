# MORE on iNaturalist 2018 with the low-rate optimizer; not run by us.
_base_ = ['./more_vit-b16_inat18.py', '../_base_/schedules/more_low-rate.py']

optim_wrapper = {{_base_.low_rate}}

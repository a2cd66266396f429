# MORE on Places-LT with the low-rate optimizer; not run by us.
_base_ = ['./more_vit-b16_places-lt.py', '../_base_/schedules/more_low-rate.py']

optim_wrapper = {{_base_.low_rate}}

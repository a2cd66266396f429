# MORE on MIML with the low-rate optimizer; not run by us.
_base_ = ['./more_rn50_miml.py', '../_base_/schedules/more_low-rate.py']

optim_wrapper = {{_base_.low_rate}}

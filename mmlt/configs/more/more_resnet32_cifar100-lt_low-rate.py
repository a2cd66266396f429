# MORE on CIFAR-100-LT with the low-rate optimizer; not run by us.
_base_ = ['./more_resnet32_cifar100-lt.py', '../_base_/schedules/more_low-rate.py']

optim_wrapper = {{_base_.low_rate}}

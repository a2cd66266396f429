# The runtime of heads that start from class means.
_base_ = './default_runtime.py'

default_hooks = dict(class_means=dict(type='mmlt.ClassMeansHook'))

# The low-rate optimizer that a third party's protocol of MORE has: SGD, lr 3e-4, momentum 0.9, weight decay 2e-4.
# Length and decay are not in it; they stay those of the config that takes it as its optim_wrapper.
low_rate = dict(
    _delete_=True, optimizer=dict(type='SGD', lr=3e-4, momentum=0.9, weight_decay=2e-4), clip_grad=dict(max_norm=5)
)

# VL-LTR stage 1 as its paper's text has it (Eq. 2, 3 and 8; temperature from 0.07).
_base_ = './cvlp_clip_rn50.py'

model = dict(
    backbone=dict(norm_eval=False),
    init_temperature=0.07,
    teacher_temperature='shared',
    loss=dict(form='sum', label_smoothing=0.0),
    distill_loss=dict(form='pair'),
)

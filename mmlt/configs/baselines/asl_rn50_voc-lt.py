# Asymmetric loss (Ridnik et al. 2021, MMPretrain's) on VOC-LT. Not run by us.
_base_ = './bce_rn50_voc-lt.py'

model = dict(
    head=dict(
        loss=dict(_delete_=True, type='AsymmetricLoss', gamma_pos=0.0, gamma_neg=4.0, clip=0.05, loss_weight=1 / 20)
    )
)

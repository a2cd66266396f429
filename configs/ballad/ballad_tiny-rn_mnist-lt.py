# BALLAD: phase A, then phase B, the balanced linear adapter on frozen towers.
_base_ = ['./ballad_tiny-rn_mnist-lt_phase-a.py']

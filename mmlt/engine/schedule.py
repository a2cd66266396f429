"""The cosine by epoch of the published codes, which start it one epoch early or late."""

from __future__ import annotations

import logging
import math

from mmengine.logging import print_log
from mmengine.optim import _ParamScheduler

from mmlt.errors import InputError
from mmlt.registry import PARAM_SCHEDULERS


def cosine_by_epoch(
    lr: float, t: int, epochs: int, eta_min: float = 0.0, warmup_epochs: int = 0, warmup_lr: float = 1e-6
) -> float:
    """Learning rate at time t: linear from ``warmup_lr``, then on a cosine that began at time 0.

    Args:
        lr (float): The full rate.
        t (int): Time in epochs; before 0 it counts as 0.
        epochs (int): T, when the cosine has come down to ``eta_min``.
        eta_min (float): Defaults to 0.
        warmup_epochs (int): W. Defaults to 0.
        warmup_lr (float): Rate at time 0 where W > 0. Defaults to 1e-6.

    Returns:
        float: ``warmup_lr + (lr - warmup_lr) t / W`` for t < W, then
        ``eta_min + (lr - eta_min) (1 + cos(pi t / T)) / 2``.

    Examples:
        >>> cosine_by_epoch(1.0, 5, epochs=10)
        0.5
    """
    t = max(t, 0)
    if t < warmup_epochs:
        return warmup_lr + (lr - warmup_lr) * t / warmup_epochs
    return eta_min + (lr - eta_min) * (1 + math.cos(math.pi * min(t, epochs) / epochs)) / 2


@PARAM_SCHEDULERS.register_module()
class EpochCosineLR(_ParamScheduler):
    """Cosine by epoch, see :func:`cosine_by_epoch`, with the published codes' shift of an epoch.

    Epoch e, from 0, has the rate of time ``e - lag``. VL-LTR's published code
    tells its scheduler the epoch that just ended (``lag=1``: its first two
    epochs have the same rate); BALLAD's steps before an epoch (``lag=-1``: it
    never trains at the full rate, and its last epoch has rate 0).

    Args:
        optimizer (Optimizer | OptimWrapper): MMEngine gives it.
        lag (int): Epochs by which the rate is late. Defaults to 0.
        eta_min (float): Of the cosine. Defaults to 0.
        warmup_epochs (int): Defaults to 0.
        warmup_lr (float): Rate at the start of the warm-up, of all groups.
            Defaults to 1e-6.
        end (int): Epochs of the cosine, T. MMEngine gives the training's.
        **kwargs: See MMEngine's schedulers.

    Raises:
        InputError: ``by_epoch=False``; a negative warm-up.
    """

    def __init__(
        self,
        optimizer,
        lag: int = 0,
        eta_min: float = 0.0,
        warmup_epochs: int = 0,
        warmup_lr: float = 1e-6,
        *,
        end: int,
        by_epoch: bool = True,
        **kwargs,
    ):
        if not by_epoch:
            raise InputError(
                'EpochCosineLR changes the rate once an epoch: leave out by_epoch=False, or take CosineAnnealingLR '
                'with convert_to_iter_based=True.'
            )
        if warmup_epochs < 0:
            raise InputError(
                f'EpochCosineLR: warmup_epochs is {warmup_epochs}; give 0 for none, or a number of epochs.'
            )
        if warmup_epochs >= end:
            print_log(
                f'The warm-up of {warmup_epochs} epochs is as long as the training of {end}, which never reaches its '
                'learning rate: shorten it with --cfg-options param_scheduler.0.warmup_epochs=...',
                logger='current',
                level=logging.WARNING,
            )
        self.lag, self.eta_min, self.warmup_epochs, self.warmup_lr = lag, eta_min, warmup_epochs, warmup_lr
        super().__init__(optimizer, 'lr', end=end, by_epoch=True, **kwargs)

    @classmethod
    def build_iter_from_epoch(cls, *args, **kwargs):
        """Refused: MMEngine calls it for ``convert_to_iter_based=True``."""
        raise InputError(
            'EpochCosineLR changes the rate once an epoch: leave out convert_to_iter_based, or take CosineAnnealingLR.'
        )

    def _get_value(self) -> list[float]:
        """Rates of all groups in the epoch that begins."""
        return [
            cosine_by_epoch(
                base, self.last_step - self.lag, self.end - self.begin, self.eta_min, self.warmup_epochs, self.warmup_lr
            )
            for base in self.base_values
        ]

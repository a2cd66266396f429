"""Transforms that change with the epochs."""

from __future__ import annotations

from collections.abc import Iterator

from mmengine.hooks import Hook
from mmengine.runner import EpochBasedTrainLoop

from mmlt.errors import InputError
from mmlt.registry import HOOKS


@HOOKS.register_module()
class EpochHook(Hook):
    """Tell every transform of the training images that asks for it which epoch begins.

    A transform asks by a method ``set_epoch(epoch, max_epochs)``, as
    :class:`GrowingRandomResizedCrop`; it is found in wrapped datasets and
    inside of other transforms, too.

    Raises:
        InputError: A transform asks, and the training does not count epochs.
    """

    def before_train_epoch(self, runner) -> None:
        """Tell them; workers fetch the first batch of the epoch after this."""
        asking = [t for t in _transforms(runner.train_dataloader.dataset, set()) if hasattr(t, 'set_epoch')]
        if asking and not isinstance(runner.train_loop, EpochBasedTrainLoop):
            raise InputError(
                f'{type(asking[0]).__name__} changes with the epochs, but the training counts iterations: set '
                'train_cfg=dict(by_epoch=True, max_epochs=...).'
            )
        for transform in asking:
            transform.set_epoch(runner.epoch, runner.max_epochs)


def _transforms(part, seen: set[int]) -> Iterator:
    """Every transform below a dataset or transform, itself included, once."""
    if id(part) in seen:
        return
    seen.add(id(part))
    yield part
    for name in ('dataset', 'datasets', 'pipeline', 'transforms', 'subroutines'):
        below = getattr(part, name, None)
        for one in below if isinstance(below, (list, tuple)) else [below]:
            if one is not None:
                yield from _transforms(one, seen)

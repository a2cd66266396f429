"""What changes with the epochs, in trainings by epochs and by iterations."""

from __future__ import annotations

from collections.abc import Iterator

from mmengine.hooks import CheckpointHook, Hook
from torch import nn

from mmlt.engine.passes import by_epoch, count_epochs, current_epoch, pass_length
from mmlt.errors import InputError
from mmlt.registry import HOOKS
from mmlt.utils import unwrap


@HOOKS.register_module()
class EpochHook(Hook):
    """Tell every part of a training that asks for it which epoch begins, and refuse settings by epoch without effect.

    A transform of the training images or a module of the model asks by a method
    ``set_epoch(epoch, max_epochs)``, as :class:`GrowingRandomResizedCrop` and
    :class:`LDAMLoss`; transforms are found in wrapped datasets and inside of
    other transforms, too. Where the training counts iterations, an epoch is a
    pass over the images. ``mmlt.Runner`` has this hook always.

    MMEngine's and others' parts that count MMEngine's epochs stand still in a
    training by iterations, which is a single one: they are refused.

    Raises:
        InputError: A part acts by epoch in a training by iterations and does
            not ask; one asks, and the length of the data is not known; one
            begins after the end of the training.
    """

    priority = 'VERY_HIGH'

    def before_train(self, runner) -> None:
        """Look for settings that would do nothing."""
        asking = self._asking(runner)
        if asking and count_epochs(runner) is None:
            raise InputError(
                f'{type(asking[0]).__name__} changes with the epochs, but the length of the data is not known: give '
                'train_dataloader a sampler with a length.'
            )
        _check_schedules(runner)
        for hook in runner.hooks:
            _check_hook(hook, runner)

    def before_train_epoch(self, runner) -> None:
        """Tell them; workers fetch the first batch of the epoch after this."""
        self._tell(runner, current_epoch(runner))

    def after_train_iter(self, runner, batch_idx: int, data_batch=None, outputs=None) -> None:
        """In a training by iterations, tell of the next pass before its first batch is fetched."""
        if by_epoch(runner):
            return
        length = pass_length(runner.train_dataloader)
        if length is not None and (runner.iter + 1) % length == 0:
            self._tell(runner, (runner.iter + 1) // length)

    def _tell(self, runner, epoch: int | None) -> None:
        asking = self._asking(runner)
        for part in asking:
            part.set_epoch(epoch, count_epochs(runner))

    @staticmethod
    def _asking(runner) -> list:
        model = getattr(runner, 'model', None)
        modules = unwrap(model).modules() if isinstance(model, nn.Module) else ()
        parts = [*_transforms(runner.train_dataloader.dataset, set()), *modules]
        return [part for part in parts if hasattr(part, 'set_epoch')]


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


def _check_schedules(runner) -> None:
    schedules = getattr(runner, 'param_schedulers', None) or []
    if isinstance(schedules, dict):
        schedules = [s for own in schedules.values() for s in (own if isinstance(own, list) else [own])]
    counts_epochs, sampler = by_epoch(runner), getattr(runner.train_dataloader, 'sampler', None)
    for schedule in schedules:
        if getattr(schedule, 'need_val_args', False) or not hasattr(schedule, 'by_epoch'):
            continue  # it acts when there was a validation
        name = type(schedule).__name__
        if schedule.by_epoch and not counts_epochs:
            length = pass_length(runner.train_dataloader)
            unit = 'iterations' if length is None else f'iterations ({length} are a pass over the images)'
            raise InputError(
                f'{name} changes by epoch, but the training counts iterations, so it would never change: give it '
                f'by_epoch=False and its lengths in {unit}, or train by epochs, train_cfg=dict(by_epoch=True, '
                'max_epochs=...).'
            )
        end = runner.max_epochs if schedule.by_epoch else runner.max_iters
        if schedule.begin >= end:
            runner.logger.warning(
                f'{name} begins at {"epoch" if schedule.by_epoch else "iteration"} {schedule.begin}, after the end of '
                f'the training at {end}: it does nothing. Shorten what comes before it.'
            )
    planned, epochs = getattr(sampler, 'max_epochs', None), count_epochs(runner)
    if planned is not None and epochs is not None and planned != epochs:
        runner.logger.warning(
            f'{type(sampler).__name__} was given max_epochs={planned}, but the training has {epochs}'
            f'{"" if counts_epochs else " passes over the images"}: set train_dataloader.sampler.max_epochs={epochs} '
            'if it is to change from its beginning to its end.'
        )


def _check_hook(hook: Hook, runner) -> None:
    """A hook that counts epochs in a training by iterations, or begins after the end."""
    name = type(hook).__name__
    if isinstance(hook, CheckpointHook):
        if hook.by_epoch and not by_epoch(runner) and hook.interval > 0:
            runner.logger.warning(
                f'{name} counts epochs, but the training counts iterations: there will be one checkpoint, at the end. '
                'Give default_hooks.checkpoint.by_epoch=False and an interval in iterations.'
            )
        return
    if type(hook).__module__.startswith('mmlt.'):
        return  # they ask for what they need
    settings = {key: value for key, value in vars(hook).items() if 'epoch' in key and type(value) is int and value > 0}
    actions = getattr(hook, 'schedule', None)  # of SwitchRecipeHook, by epoch
    if isinstance(actions, dict) and actions and all(type(key) is int for key in actions) and max(actions) > 0:
        settings['action_epoch'] = max(actions)
    for key, value in settings.items():
        if not by_epoch(runner):
            instead = key.replace('epoch', 'iter')
            instead = f'give {instead} instead' if hasattr(hook, instead) else 'leave out the hook'
            raise InputError(
                f'{name} has {key}={value}, but the training counts iterations, which MMEngine takes for a single '
                f'epoch: {instead}, or train by epochs, train_cfg=dict(by_epoch=True, max_epochs=...).'
            )
        if value > runner.max_epochs:
            raise InputError(
                f'{name} has {key}={value}, but the training ends after {runner.max_epochs} epochs: give a smaller '
                'number, or leave out the hook.'
            )
    begin = getattr(hook, 'begin_iter', 0)
    if type(begin) is int and begin > runner.max_iters:
        raise InputError(
            f'{name} has begin_iter={begin}, but the training ends after {runner.max_iters} iterations: give a smaller '
            'number, or leave out the hook.'
        )

"""Checkpoints from which an interrupted training goes on as if nothing had been."""

from __future__ import annotations

import os.path as osp

from mmengine.dist import is_main_process
from mmengine.hooks import CheckpointHook as MMEngineCheckpointHook
from mmengine.registry import HOOKS as MMENGINE_HOOKS
from torch.utils.data import DataLoader

from mmlt.checkpoints import write_atomic
from mmlt.engine.batch_order import PlacedBatches, ResumedIterator, place_batches
from mmlt.engine.passes import by_epoch
from mmlt.engine.random_state import gathered_random_state, random_state, restore_random_state

_STATE, _VALIDATE = 'random_state', 'validation_comes'


class WholeCheckpointHook(MMEngineCheckpointHook):
    """MMEngine's CheckpointHook, which never loses the last whole checkpoint and resumes exactly.

    - An earlier checkpoint, or an earlier best one, is removed when the new one
      and the file that names it lie on the disk, not before.
    - A checkpoint has the state of all random numbers of every process. A
      training that is resumed by as many processes draws what the uninterrupted
      one draws; in the middle of an epoch, too.
    - A validation that was to follow a checkpoint, and that may have been
      interrupted, follows the resume.

    Importing :mod:`mmlt` puts it in the place of MMEngine's, by its registry.
    Arguments are those of MMEngine's.
    """

    _queued: list | None = None
    _resumed: dict | None = None

    def before_train(self, runner) -> None:
        """See MMEngine; then the random numbers are what they were, and a validation that was due is made up for."""
        super().before_train(runner)
        self.file_backend = _LateRemovals(self.file_backend, self)
        for loop in (runner._train_loop, runner._val_loop):
            if place_batches(getattr(loop, 'dataloader', None), runner.seed or 0) and loop is runner._train_loop:
                self._begin_order(runner, 0)
        if self._resumed is None:
            return
        self._restore(runner)
        if self._resumed.get(_VALIDATE) and runner.val_loop is not None:
            runner.val_loop.run()
        self._resumed[_STATE] = {k: v[None] for k, v in random_state().items()} if _STATE in self._resumed else None

    def before_train_epoch(self, runner) -> None:
        """The order of the batches goes on where it was."""
        loader = runner.train_loop.dataloader
        batches = getattr(loader, 'batch_sampler', None)
        if isinstance(batches, PlacedBatches):
            if by_epoch(runner):
                batches.passes = runner.epoch
                batches.skip = (runner.iter - runner.epoch * len(loader)) % len(loader) if self._resumed else 0
            elif self._resumed:
                self._begin_order(runner, runner.iter)
        self._resumed = None

    @staticmethod
    def _begin_order(runner, done: int) -> None:
        loop = runner.train_loop
        if not isinstance(loop.dataloader, DataLoader) or not hasattr(loop, 'dataloader_iterator'):
            return
        kind = type(loop.dataloader_iterator)
        loop.dataloader_iterator = kind(loop.dataloader) if not done else ResumedIterator(kind, loop.dataloader, done)

    def after_load_checkpoint(self, runner, checkpoint: dict) -> None:
        """Keep what a resume needs."""
        if getattr(runner, '_resume', False):
            self._resumed = {name: checkpoint.get(name) for name in (_STATE, _VALIDATE) if name in checkpoint}

    def _restore(self, runner) -> None:
        why = 'the checkpoint has none'
        if _STATE in self._resumed:
            why = restore_random_state(self._resumed[_STATE])
        if why is not None:
            runner.logger.info(
                f'The state of the random numbers is not restored, since {why}: the training goes on by other ones '
                'than without the interruption.'
            )

    def before_save_checkpoint(self, runner, checkpoint: dict) -> None:
        """Add what a resume needs, unless it is the weights alone that are kept."""
        if getattr(self, '_saved', None) is not None and 'optimizer' in checkpoint:
            checkpoint.update(self._saved)

    def _save_checkpoint(self, runner) -> None:
        self._validates = _validates(runner)
        super()._save_checkpoint(runner)

    def _save_best_checkpoint(self, runner, metrics) -> None:
        self._validates = False
        self._late(runner, super()._save_best_checkpoint, runner, metrics)

    def _save_checkpoint_with_step(self, runner, step, meta) -> None:
        self._saved = {_STATE: gathered_random_state(), _VALIDATE: self._validates}
        try:
            self._late(runner, super()._save_checkpoint_with_step, runner, step, meta)
        finally:
            self._saved = None

    def _late(self, runner, save, *args) -> None:
        """Call one of MMEngine's savers; what it removes is removed in the end."""
        if self._queued is not None:
            return save(*args)
        self._queued = []
        try:
            save(*args)
            queued = self._queued
        finally:
            self._queued = None
        for remove, path in queued:
            if osp.abspath(path) not in {osp.abspath(p) for p in self._kept()}:
                remove(path)

    def _kept(self) -> list[str]:
        """Checkpoints that were just written, perhaps over one that was to be removed."""
        several = getattr(self, 'best_ckpt_path_dict', None) or {}
        return [p for p in (self.last_ckpt, getattr(self, 'best_ckpt_path', None), *several.values()) if p]


class _LateRemovals:
    """A file backend that removes nothing while a checkpoint is saved."""

    def __init__(self, backend, hook: WholeCheckpointHook):
        self._backend, self._hook = backend, hook

    def __getattr__(self, name: str):
        return getattr(self._backend, name)

    def remove(self, path: str) -> None:
        self._remove(self._backend.remove, path)

    def rmtree(self, path: str) -> None:
        self._remove(self._backend.rmtree, path)

    def _remove(self, remove, path: str) -> None:
        if self._hook._queued is None:
            remove(path)
        else:
            self._hook._queued.append((remove, path))


def _validates(runner) -> bool:
    """Whether a validation follows the epoch or iteration that ends."""
    loop = runner.train_loop
    if runner.val_loop is None or not hasattr(loop, 'val_begin'):
        return False
    if by_epoch(runner):
        done, end = runner.epoch + 1, runner.max_epochs
    else:
        done, end = runner.iter + 1, runner.max_iters
    return done >= loop.val_begin and (done % loop.val_interval == 0 or done == end)


MMENGINE_HOOKS.register_module(name='CheckpointHook', module=WholeCheckpointHook, force=True)

"""A resumed training draws what the uninterrupted one would."""

from __future__ import annotations

from mmengine.hooks import Hook

from mmlt.engine.deferred import saves
from mmlt.engine.hooks.checkpoint_guard import is_testing
from mmlt.engine.random_state import random_state, random_states, restore_of_rank, restore_random_state
from mmlt.registry import HOOKS


@HOOKS.register_module()
class RandomNumbersHook(Hook):
    """Keep the states of all random number generators in the checkpoints, of every process.

    A training that goes on with as many processes has them back before its
    first step; with :mod:`mmlt.engine.draws` it then is the uninterrupted one,
    number by number. A validation takes none of the training's numbers.
    """

    priority = 'LOW'  # after what draws, and before checkpoints are written

    def __init__(self) -> None:
        self._to_save: list[dict] | None = None
        self._to_restore: list[dict] | None = None
        self._of_training: dict | None = None

    def after_load_checkpoint(self, runner, checkpoint: dict) -> None:
        """Take the states of a training that goes on."""
        states = checkpoint.pop('random_states', None)
        if getattr(runner, '_resume', False) and not is_testing(runner):
            self._to_restore = states

    def before_train(self, runner) -> None:
        """Go on where the checkpoint was: hooks have drawn what they drew before the first epoch."""
        restore_of_rank(self._to_restore)
        self._to_restore = None

    def after_train_epoch(self, runner) -> None:
        """Gather the states, in all processes: only the main one writes a checkpoint."""
        self._to_save = random_states()

    def after_train_iter(self, runner, batch_idx: int, data_batch=None, outputs: dict | None = None) -> None:
        """See :meth:`after_train_epoch`."""
        if saves(runner):
            self._to_save = random_states()

    def before_save_checkpoint(self, runner, checkpoint: dict) -> None:
        """Write them down."""
        if self._to_save is not None:
            checkpoint['random_states'] = self._to_save

    def before_val(self, runner) -> None:
        """Keep the training's numbers."""
        self._of_training = random_state(gpu=True)

    def after_val(self, runner) -> None:
        """Give them back."""
        if self._of_training is not None:
            restore_random_state(self._of_training)
            self._of_training = None

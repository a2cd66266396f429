"""The checkpoint that is best by validation, by any figure that a metric has."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from mmengine.fileio import BaseStorageBackend
from mmengine.hooks import CheckpointHook as MMEngineCheckpointHook
from mmengine.runner.base_loop import BaseLoop

from mmlt.engine.metric_keys import result_keys
from mmlt.engine.passes import by_epoch
from mmlt.errors import InputError
from mmlt.evaluation.functional import SHOTS
from mmlt.evaluation.meanings import LESS_IS_BETTER
from mmlt.registry import HOOKS

# By the last part of a key, which is what the metric calls it.
_RULES = {
    **dict.fromkeys(('all', *SHOTS, 'balanced', 'sample_accuracy', 'worst_class', 'harmonic_mean'), 'greater'),
    **dict.fromkeys(LESS_IS_BETTER, 'less'),
    **dict.fromkeys(('f1-score', 'recall', 'support'), 'greater'),
}


@HOOKS.register_module()
class CheckpointHook(MMEngineCheckpointHook):
    """MMEngine's CheckpointHook, which knows the figures of this project's and MMPretrain's metrics.

    ``save_best`` may be any of them, several, or 'auto' (the first figure of
    the result); whether more is better is known of each. A figure that the
    validation will not have is refused before the training. :class:`Runner`
    takes this hook wherever a config names MMEngine's.

    Args:
        **kwargs: See MMEngine's ``CheckpointHook``.

    Raises:
        InputError: Settings that contradict each other; a figure that the
            validation does not have, or of which nobody knows whether more is
            better.
    """

    file_backend: BaseStorageBackend

    def __init__(self, *args, **kwargs):
        if isinstance(kwargs.get('save_best'), tuple):
            kwargs['save_best'] = list(kwargs['save_best'])
        try:
            super().__init__(*args, **kwargs)
        except AssertionError as e:
            raise InputError(f'default_hooks.checkpoint: {e}') from e
        self._checked = False

    def _init_rule(self, rules, key_indicators) -> None:
        """See MMEngine; beyond its list the figures of the metrics have their rules."""
        if len(rules) == 1:
            rules = rules * len(key_indicators)
        rules = [rule or _RULES.get(key.rsplit('/', 1)[-1]) for rule, key in zip(rules, key_indicators)]
        if wrong := [rule for rule in rules if rule not in (None, *self.rule_map)]:
            raise InputError(f"default_hooks.checkpoint.rule is '{wrong[0]}'; choose 'greater' or 'less'.")
        try:
            super()._init_rule(rules, key_indicators)
        except ValueError as e:
            raise InputError(
                f'default_hooks.checkpoint.save_best is {_listed(key_indicators)}, and nobody knows whether more of it '
                "is better: give default_hooks.checkpoint.rule='greater' or 'less', a list for several."
            ) from e

    def before_run(self, runner) -> None:
        """Compare ``save_best`` with the figures that the validation will have, before anything is trained."""
        train, loop = runner._train_loop, runner._val_loop
        if not self.save_best or self._checked or not all(isinstance(each, BaseLoop) for each in (train, loop)):
            return
        self._checked = True
        keys, complete = result_keys(loop.evaluator.metrics, loop.dataloader.dataset)
        if complete and 'auto' in self.key_indicators:
            self._init_rule(self.rules, keys[:1])
        prefixes = {key.partition('/')[0] for key in keys}
        for key in self.key_indicators:
            # Losses are the model's, and a metric that cannot tell has its own prefix: the first validation will show.
            if 'loss' not in key and (complete or key.partition('/')[0] in prefixes):
                _check(key, keys, 'the validation will have')

    def before_train(self, runner) -> None:
        """See MMEngine; a validation that an interruption took is made up for, since the best may be its checkpoint."""
        super().before_train(runner)
        loop = runner.train_loop
        done, most = (runner.epoch, runner.max_epochs) if by_epoch(runner) else (runner.iter, runner.max_iters)
        if not self.save_best or not done or runner.val_loop is None:
            return
        loop._decide_current_val_interval()
        if done >= loop.val_begin and (done % loop.val_interval == 0 or done == most):
            self.last_ckpt = runner.message_hub.runtime_info.get('last_ckpt')
            runner.val_loop.run()

    def _save_best_checkpoint(self, runner, metrics: dict) -> None:
        """See MMEngine; a figure that is missing is told by a sentence."""
        for key in self.key_indicators if self.save_best else ():
            _check(key, list(metrics), 'the validation has')
        with self._removing_at_the_end():
            super()._save_best_checkpoint(runner, metrics)

    def _save_checkpoint_with_step(self, runner, step: int, meta: dict) -> None:
        """See MMEngine; what is replaced is removed when its successor is on the disk."""
        with self._removing_at_the_end():
            super()._save_checkpoint_with_step(runner, step, meta)

    @contextmanager
    def _removing_at_the_end(self) -> Iterator[None]:
        """MMEngine removes a checkpoint before it writes the next one, which may be the only whole one then."""
        backend = self.file_backend
        if isinstance(backend, _RemovesLater):
            yield
            return
        self.file_backend = later = _RemovesLater(backend)
        try:
            yield
        finally:
            self.file_backend = backend
        later.remove_now()


class _RemovesLater:
    """A file backend that keeps what it is to remove."""

    def __init__(self, backend):
        self._backend, self._removals = backend, []

    def __getattr__(self, name: str):
        return getattr(self._backend, name)

    def remove(self, path: str) -> None:
        """Keep a file in mind."""
        self._removals.append((self._backend.remove, path))

    def rmtree(self, path: str) -> None:
        """Keep a folder in mind."""
        self._removals.append((self._backend.rmtree, path))

    def remove_now(self) -> None:
        """Remove all of it."""
        for remove, path in self._removals:
            remove(path)


def _check(key: str, keys: list[str], which: str) -> None:
    if key in keys or key == 'auto':
        return
    prefix, _, name = key.rpartition('/')
    why = ''
    if name in SHOTS and f'{prefix}/all' in keys:
        why = f' The validation split has no picture of {name}-shot classes.'
    raise InputError(
        f"default_hooks.checkpoint.save_best is '{key}', but the figures that {which} are {', '.join(keys)}: choose "
        f'one of them.{why}'
    )


def _listed(keys) -> str:
    return ' and '.join(f"'{key}'" for key in keys)

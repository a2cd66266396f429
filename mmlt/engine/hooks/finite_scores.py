"""A test whose scores are no numbers ends with a sentence, whatever metrics it has."""

from __future__ import annotations

from mmengine.dist import all_gather_object, get_rank, get_world_size
from mmengine.hooks import Hook

from mmlt.checkpoints.weights import not_finite as weight_not_finite
from mmlt.errors import InputError
from mmlt.evaluation.finite import first_not_finite, scores_not_finite
from mmlt.registry import HOOKS
from mmlt.utils import unwrap


@HOOKS.register_module()
class FiniteScoresHook(Hook):
    """Stop a validation or test whose predictions have a NaN or infinite score, in all processes.

    Metrics rank such scores somewhere, and their figures look like any other.
    The message names the first picture, and a weight that is not finite. One
    process stops at once, several at the end of their batches, together.
    :class:`Runner` always has this hook.

    Raises:
        InputError: A score is not finite.
    """

    priority = 'VERY_HIGH'

    def __init__(self) -> None:
        self._found: tuple | None = None

    def before_val_epoch(self, runner) -> None:
        """Begin anew."""
        self._found = None

    def before_test_epoch(self, runner) -> None:
        """Begin anew."""
        self._found = None

    def after_val_iter(self, runner, batch_idx: int, data_batch=None, outputs=None) -> None:
        """Look at the scores of a batch."""
        self._look(runner, runner.val_dataloader, batch_idx, outputs)

    def after_test_iter(self, runner, batch_idx: int, data_batch=None, outputs=None) -> None:
        """Look at the scores of a batch."""
        self._look(runner, runner.test_dataloader, batch_idx, outputs)

    def _look(self, runner, dataloader, batch_idx: int, outputs) -> None:
        samples = [sample for sample in outputs or () if hasattr(sample, 'get')]
        if self._found is None and (place := first_not_finite(samples)) is not None:
            sentence = scores_not_finite(samples[place])
            if (weight := weight_not_finite(unwrap(runner.model).state_dict())) is not None:
                sentence += f" The weight '{weight}' is not finite."
            self._found = (batch_idx, place, get_rank(), sentence)
        found = self._found
        if get_world_size() > 1:
            if batch_idx + 1 < len(dataloader):
                return
            found = min((f for f in all_gather_object(self._found) if f is not None), default=None)
        if found is not None:
            raise InputError(found[-1])

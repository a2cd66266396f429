"""Anchor sentences at the end of a class-wise pretraining."""

from __future__ import annotations

import os.path as osp
from collections.abc import Callable
from pathlib import Path

from mmengine.dist import is_main_process
from mmengine.hooks import CheckpointHook, EMAHook, Hook
from torch import Tensor

from mmlt.checkpoints import write_text
from mmlt.engine.anchor_selection import anchor_list, check_selection, select_anchors
from mmlt.errors import InputError
from mmlt.models import CVLP
from mmlt.models.text.anchors import Anchors
from mmlt.registry import HOOKS
from mmlt.utils import unwrap


@HOOKS.register_module()
class AnchorSelectionHook(Hook):
    """After CVLP's training, select the anchor sentences of every class (AnSS; VL-LTR, section 3.3).

    At most ``images_per_class`` training images of every class, seen through
    the test pipeline, score all sentences; the ``num_anchors`` best of each
    class are written with their embeddings, scores and texts. Beside the file
    stands a text file with the best and worst sentences of every class.

    Args:
        num_anchors (int): M; classes with fewer sentences are padded and
            masked. Defaults to 64.
        images_per_class (int): Defaults to 50.
        method (str): 'anss'; for ablations 'cutoff' (the first M) or 'random'.
            Defaults to 'anss'.
        filename (str): Name in the work directory.
            Defaults to 'anchors.safetensors'.

    Raises:
        InputError: Another method; a model that is no CVLP; a
            CheckpointHook with ``save_best``.
    """

    # After the checkpoint hook: the checkpoint is there even if this fails, and a resume comes straight back here.
    priority = 'LOWEST'

    def __init__(
        self,
        num_anchors: int = 64,
        images_per_class: int = 50,
        method: str = 'anss',
        filename: str = 'anchors.safetensors',
    ):
        check_selection(num_anchors, images_per_class, method)
        self.num_anchors, self.images_per_class = num_anchors, images_per_class
        self.method, self.filename = method, filename

    def before_train(self, runner) -> None:
        """A model without sentences is an error before the training, not after it."""
        if not isinstance(model := unwrap(runner.model), CVLP):
            raise InputError(f'AnchorSelectionHook selects sentences of mmlt.CVLP, not of {type(model).__name__}.')
        if any(isinstance(hook, CheckpointHook) and hook.save_best for hook in runner.hooks):
            raise InputError(
                'AnchorSelectionHook selects sentences by the last weights, but with save_best the next stage would '
                'take the best ones: remove save_best from the CheckpointHook of this training.'
            )

    def after_train(self, runner) -> None:
        """Select and write the anchors."""
        model, loader = unwrap(runner.model), runner.train_dataloader
        evaluated = runner.cfg.get('test_dataloader') or runner.cfg.get('val_dataloader') or runner.cfg.train_dataloader
        averaged = [hook for hook in runner.hooks if isinstance(hook, EMAHook)]
        for hook in averaged:
            hook._swap_ema_parameters()  # the checkpoint holds the averaged weights
        try:
            anchors, scores = select_anchors(
                model,
                loader.dataset,
                evaluated.dataset.pipeline,
                self.num_anchors,
                self.images_per_class,
                self.method,
                seed=runner.seed or 0,
                batch_size=loader.batch_size,
                num_workers=loader.num_workers,
            )
        finally:
            for hook in averaged:
                hook._swap_ema_parameters()
        if is_main_process():
            write_anchors(
                anchors, scores, model.table.sentences, osp.join(runner.work_dir, self.filename), runner.logger.info
            )


def write_anchors(
    anchors: Anchors, scores: Tensor, sentences: list[list[str]], path: str, say: Callable[[str], None]
) -> None:
    """Write the anchor file and its listing, and say what was selected."""
    anchors.save(path)
    text = Path(path).with_suffix('.txt')
    write_text(text, anchor_list(anchors.facts['classes'], sentences, scores))
    number = anchors.features.shape[1]
    fewer = int((anchors.counts < number).sum())
    say(
        f'{int(anchors.counts.sum())} of {len(scores)} sentences are anchors, {number} a class'
        + (f' ({fewer} of {len(anchors.counts)} classes have fewer and are padded)' if fewer else '')
        + f': {path}\nBest and worst sentences of every class: {text}'
    )

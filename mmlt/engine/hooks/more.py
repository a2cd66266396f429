"""The schedule of MORE, what it does to the classes, and the merged model."""

from __future__ import annotations

import math
import os
import os.path as osp

import numpy as np
import torch
from mmengine.dist import all_reduce, is_main_process
from mmengine.hooks import Hook

from mmlt.checkpoints import whole_file
from mmlt.checkpoints.publish import check_merged, is_split, publish_checkpoint
from mmlt.checkpoints.weights import fit_state
from mmlt.engine.deferred import saves
from mmlt.engine.hooks.checkpoint_guard import is_testing, source_of
from mmlt.engine.hooks.finite_loss import FiniteLossHook, LossWatch, check_weights, in_any_process, stop
from mmlt.errors import InputError
from mmlt.evaluation.functional import SHOTS, get_protocol, shot_groups
from mmlt.models import MORE
from mmlt.models.more import group_sums
from mmlt.registry import HOOKS
from mmlt.utils import unwrap
from mmlt.utils.class_info import class_info
from mmlt.utils.labels import read_labels
from mmlt.visualization import plot_discrepancy, write_json

_HISTORY = 'more_history'


@HOOKS.register_module()
class MOREHook(Hook):
    """Set MORE's alpha at every iteration, log the discrepancy, merge at the end.

    - ``alpha(t) = A sin(pi t / T)`` with t the iteration and T all iterations
      of the training; after a resume it goes on where it was.
    - ``more_alpha``, and the mean discrepancy of many-, medium- and few-shot
      samples since the last time, ``more_discrepancy_many`` and so on, go to
      the log; in the end to ``more_discrepancy.json`` and ``.png`` in the work
      directory. The paper finds it larger on few-shot classes. Without
      penalty (``peak=0``) there is no second pass and no discrepancy.
    - A training that diverges is stopped by a sentence, in all processes: the
      losses are looked at in every iteration; the discrepancy and the weights
      every ``interval`` iterations; the weights also at the end of every epoch
      and before every checkpoint. Nothing is merged then.
    - After the training the merged model is written to ``merged.pth``, a
      checkpoint of the plain config. With an EMAHook it has the averaged
      weights, as MMEngine's checkpoints do. Its logits on a training batch are
      compared with those of the split model. A file of that name that was
      there before the training, from another one, is renamed to
      ``merged_earlier.pth``.

    Training counts that the dataset does not tell are counted from its labels.

    Args:
        interval (int): Iterations between two logs of the discrepancy, and two
            looks at the weights. Defaults to 20.
        protocol (str): How classes are split into shot groups, see
            :class:`ShotAccuracy`. Defaults to 'standard'.
        filename (str, optional): Name of the merged checkpoint in the work
            directory; None writes none. Defaults to 'merged.pth'.

    Raises:
        InputError: The model is no :class:`MORE`; the training has no known
            length; class counts that cannot be had; a checkpoint of another
            model, or a merged one to resume from; losses, discrepancy or
            weights that are not finite; merged weights that predict otherwise.
    """

    # Before the LoggerHook, so that a line of the log has this iteration's values.
    priority = 'NORMAL'

    def __init__(self, interval: int = 20, protocol: str = 'standard', filename: str | None = 'merged.pth'):
        if interval < 1:
            raise InputError(f'MOREHook: interval is {interval}; give a number of iterations, at least 1.')
        get_protocol(protocol)
        self.interval, self.protocol, self.filename = interval, protocol, filename
        self.total = 0
        self._groups: torch.Tensor | None = None
        self._sums: torch.Tensor | None = None
        self._last_batch = None
        self._checks_losses, self._watch = True, LossWatch()

    def after_load_checkpoint(self, runner, checkpoint: dict) -> None:
        """Refuse weights of another model, and to resume from merged ones."""
        if getattr(runner, '_resume', False) and not is_split(checkpoint):
            raise InputError(
                'Cannot resume MORE from a merged or plain checkpoint, its low-rank parts are gone: resume from one of '
                'the training, or start anew from its weights with load_from=<checkpoint> and resume=False.'
            )

        state = checkpoint.get('state_dict', checkpoint)
        fit_state(self._model(runner), state).require('use' if is_testing(runner) else 'start', source_of(runner))

    def before_train(self, runner) -> None:
        """Look at the model, the length of the training, and the counts."""
        model = self._model(runner)
        self.total = _length(runner)
        if runner.cfg.get('activation_checkpointing') and model.peak > 0:
            raise InputError(
                'activation_checkpointing recomputes layers in the backward pass, when the second pass of MORE is over '
                'and its weights are gone: leave it out, or set model.peak=0.'
            )
        self._checks_losses = not any(isinstance(hook, FiniteLossHook) for hook in runner.hooks)
        if is_main_process():
            self._set_aside(runner)
        if model.peak == 0:
            return
        if model.class_counts is None:
            dataset = runner.train_dataloader.dataset
            info = class_info(dataset)
            if info.counts is None:
                read_labels(dataset)  # says that it tells none
            model.set_class_info(info)
        groups = shot_groups(np.asarray(model.class_counts), get_protocol(self.protocol))
        self._groups = torch.eye(len(SHOTS))[torch.from_numpy(groups)].to(next(model.parameters()).device)
        self._sums = self._groups.new_zeros(2, len(SHOTS))
        if runner.iter == 0 or _HISTORY not in runner.message_hub.runtime_info:  # otherwise resumed
            runner.message_hub.update_info(_HISTORY, [])

    def before_train_iter(self, runner, batch_idx: int, data_batch=None) -> None:
        """Set alpha."""
        model = self._model(runner)
        model.set_progress(runner.iter, self.total)
        runner.message_hub.update_scalar('train/more_alpha', model.alpha)

    def after_train_iter(self, runner, batch_idx: int, data_batch=None, outputs: dict | None = None) -> None:
        """Stop if the training diverged; sum up the discrepancy."""
        model = self._model(runner)
        done = runner.iter + 1
        if self._checks_losses:
            self._watch.look(runner, batch_idx, outputs)
        looks = done % self.interval == 0 or done == self.total
        if looks or saves(runner):
            check_weights(runner, done)
        if done == self.total:
            self._last_batch = data_batch
        if model.peak == 0:
            return
        differences, targets = model.last
        self._sums += group_sums(differences.to(self._sums), targets.to(self._sums), self._groups)
        if not looks:
            return
        all_reduce(self._sums)
        sums, counts = self._sums.tolist()
        self._sums.zero_()
        if not all(map(math.isfinite, sums)):
            stop(runner, "MORE's discrepancy became NaN or infinite", done)
        means = [s / n if n else math.nan for s, n in zip(sums, counts)]
        for shot, mean in zip(SHOTS, means):
            if not math.isnan(mean):
                runner.message_hub.update_scalar(f'train/more_discrepancy_{shot}', mean)
        history = runner.message_hub.get_info(_HISTORY)
        runner.message_hub.update_info(_HISTORY, [*history, [done, model.alpha, *means]])

    def after_train_epoch(self, runner) -> None:
        """Look at the weights before a checkpoint is written."""
        check_weights(runner, runner.iter)

    def after_train(self, runner) -> None:
        """Write picture, numbers and the merged checkpoint."""
        wrong = None
        if is_main_process():
            self._report(runner)
            if self.filename is not None:
                wrong = self._merge(runner)
        self._last_batch = None
        if in_any_process(wrong is not None):
            stop(runner, wrong or 'the merged weights are wrong, see the main process', runner.iter)

    def _set_aside(self, runner) -> None:
        """Rename the merged checkpoint of an earlier training: if this one fails, it must not pass for its result."""
        if self.filename is None or not osp.exists(path := osp.join(runner.work_dir, self.filename)):
            return
        stem, suffix = osp.splitext(path)
        os.replace(path, earlier := f'{stem}_earlier{suffix}')
        runner.logger.info(f'{path} was of an earlier training and is now {earlier}')

    def _report(self, runner) -> None:
        if not (rows := runner.message_hub.runtime_info.get(_HISTORY)):
            return
        columns = ('iteration', 'alpha', *SHOTS)
        history = {c: [None if v != v else v for v in values] for c, values in zip(columns, zip(*rows))}
        base = osp.join(runner.work_dir, 'more_discrepancy')
        write_json(history, f'{base}.json')
        title = osp.splitext(osp.basename(runner.cfg.filename or runner.experiment_name))[0]
        plot_discrepancy(history, f'{base}.png', title)
        last = ', '.join(f'{s} {history[s][-1]:.3g}' for s in SHOTS if history[s][-1] is not None)
        runner.logger.info(f'Mean discrepancy at the end: {last}. Picture: {base}.png')

    def _merge(self, runner) -> str | None:
        """Write the merged checkpoint; returns what is wrong with it, and writes nothing then."""
        model = self._model(runner)
        checkpoint = dict(
            meta=dict(epoch=runner.epoch, iter=runner.iter, cfg=runner.cfg.pretty_text, seed=runner.seed),
            state_dict=model.state_dict(),
        )
        if hasattr(dataset := runner.train_dataloader.dataset, 'metainfo'):
            checkpoint['meta']['dataset_meta'] = dataset.metainfo
        runner.call_hook('before_save_checkpoint', checkpoint=checkpoint)
        try:
            published = publish_checkpoint(checkpoint)
        except InputError as e:
            return str(e)
        if self._last_batch is not None:
            inputs = model.data_preprocessor(self._last_batch, False)['inputs']
            right, found = check_merged(model, checkpoint['state_dict'], published['state_dict'], inputs)
            if not right:
                return found
            runner.logger.info(found)
        path = osp.join(runner.work_dir, self.filename)
        with whole_file(path) as part:
            torch.save(published, part)
        sizes = [sum(v.numel() for v in d['state_dict'].values()) / 1e6 for d in (checkpoint, published)]
        runner.logger.info(f'Merged weights: {path}, {sizes[1]:.2f} of {sizes[0]:.2f} million numbers')
        return None

    @staticmethod
    def _model(runner) -> MORE:
        model = unwrap(runner.model)
        if not isinstance(model, MORE):
            raise InputError(
                f"MOREHook belongs to a model of type 'mmlt.MORE', but this one is {type(model).__name__}: wrap it, "
                "model=dict(type='mmlt.MORE', classifier=...), or remove the hook."
            )
        return model


def _length(runner) -> int:
    try:
        total = runner.max_iters
    except (AttributeError, TypeError):
        total = None
    if not total or not math.isfinite(total):
        raise InputError(
            f'MORE needs the length of the training for its schedule, but {type(runner.train_loop).__name__} tells '
            'none: set max_iters, or max_epochs with a dataset of known length, in train_cfg.'
        )
    return int(total)

"""A training that starts from the merged models of earlier stages."""

from __future__ import annotations

import os.path as osp
from collections.abc import Sequence

import torch
from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from torch import Tensor

from mmlt.checkpoints import read_checkpoint, whole_file
from mmlt.checkpoints.merging import Merged, check_mergeable, lt_soups
from mmlt.engine.batch_norm import measure_statistics, statistics
from mmlt.engine.stages import RunRecord
from mmlt.errors import InputError
from mmlt.registry import HOOKS
from mmlt.utils import unwrap


@HOOKS.register_module()
class SoupHook(Hook):
    """Before a training, merge the models of earlier stages into its own, by the recursion of LT-Soups.

    ``W_0`` is this training's model as it begins, with its pretrained tower and
    the class vectors from texts: what every subset's training began from. See
    :func:`lt_soups` for the sum and for whose choices they are. The merged model
    is also left as ``soup.pth`` in the work directory, to be tested. A training
    that is resumed merges nothing.

    Args:
        groups (Sequence[Sequence[str]]): The models of every subset, the most
            balanced subset first: work directories of stages
            (``'{stage:imbalance_1}'``), of which the result is taken, or
            checkpoints.
        ratio (float): Share of a new subset. Defaults to 0.7.
        bn_images (int): On how many training images the statistics of BatchNorm
            layers, where the models' differ, are measured anew, see
            :func:`measure_statistics`. Defaults to 0, they are averaged as
            weights are, which is told; ViTs have none.

    Raises:
        InputError: No models; a negative ``bn_images``; a stage that is not finished; models of other
            classes or of another architecture.
    """

    priority = 'VERY_HIGH'  # before features are cached

    def __init__(self, groups: Sequence[Sequence[str]], ratio: float = 0.7, bn_images: int = 0):
        if not groups or any(isinstance(group, str) or not group for group in groups):
            raise InputError(
                "SoupHook's groups are lists of the models of every subset: give at least one, as in "
                "groups=[['{stage:imbalance_1}'], ['{stage:imbalance_2}']]."
            )
        if not 0 < ratio <= 1:
            raise InputError(f"SoupHook's ratio is {ratio}; give a number above 0, at most 1.")
        if not (isinstance(bn_images, int) and bn_images >= 0):
            raise InputError(f"SoupHook's bn_images is {bn_images}; give a whole number of images, 0 for none.")
        self.groups, self.ratio, self.bn_images = groups, ratio, bn_images

    def check_run(self, runner) -> None:
        """For a try before the first stage: the models are not there yet, and the settings are looked at already."""

    def before_train(self, runner) -> None:
        """Merge, unless the training goes on from a checkpoint of its own."""
        if runner.iter > 0:
            return
        model = unwrap(runner.model)
        merged = self.merge(runner, model.state_dict())
        model.load_state_dict(merged.state)
        share = ', '.join(f'{weight:.3f} {name}' for name, weight in merged.weights.items())
        runner.logger.info(f'Merged weights: {share}.')
        if self.bn_images and (layers := merged.averaged_statistics):
            measure_statistics(model, runner.train_dataloader, layers, self.bn_images)
            merged.state.update(statistics(model.state_dict(), layers))
            merged.averaged_statistics = []
            runner.logger.info(
                f'BatchNorm statistics measured on {self.bn_images} training images: {len(layers)} layers.'
            )
        for note in [*merged.notes, *merged.statistics_note()]:
            runner.logger.info(note)
        if is_main_process():
            self._write(runner, merged)

    def merge(self, runner, anchor: dict[str, Tensor]) -> Merged:
        """Read the models and merge them.

        Args:
            runner (Runner): Whose dataset and config the models must fit.
            anchor (dict[str, Tensor]): W_0.

        Returns:
            Merged: On the CPU.
        """
        paths = [[model_of(place) for place in group] for group in self.groups]
        contents = {path: _weights(path) for group in paths for path in group}
        own = dict(meta=self._meta(runner))
        for note in check_mergeable({'this training': own, **contents}):
            runner.logger.warning(note)
        states = {path: content['state_dict'] for path, content in contents.items()}
        anchor = {key: value.detach().cpu() for key, value in anchor.items()}
        return lt_soups(anchor, [{path: states[path] for path in group} for group in paths], self.ratio)

    @staticmethod
    def _meta(runner) -> dict:
        dataset = runner.train_dataloader.dataset
        return dict(cfg=runner.cfg.pretty_text, dataset_meta=getattr(dataset, 'metainfo', None))

    def _write(self, runner, merged: Merged) -> None:
        path = osp.join(runner.work_dir, 'soup.pth')
        with whole_file(path) as part:
            torch.save(dict(meta={**self._meta(runner), 'merged': merged.weights}, state_dict=merged.state), part)
        runner.logger.info(f'The merged model before the training is in {path}')


def _weights(path: str) -> dict:
    """Weights and meta of a checkpoint, without its optimizer, which is twice as large."""
    content = read_checkpoint(path)
    return dict(meta=content.get('meta'), state_dict=content.get('state_dict', content))


def model_of(place: str) -> str:
    """The checkpoint that a work directory's training gave, or the file itself.

    Args:
        place (str): A work directory, or a checkpoint.

    Returns:
        str: A path.

    Raises:
        InputError: The training is not finished, or there is nothing.
    """
    if osp.isfile(place):
        return place
    record = RunRecord(place)
    if not record.finished or record.result is None:
        raise InputError(f"SoupHook merges the model of '{place}', where no training is finished: train it first.")
    return record.result

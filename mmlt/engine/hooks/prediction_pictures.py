"""Pictures of the predictions, with the colours and under the names that they have."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence

import torch
from mmengine.dist import get_world_size
from mmengine.fileio import join_path
from mmengine.model import BaseTTAModel
from mmpretrain.engine.hooks import VisualizationHook
from mmpretrain.structures import DataSample
from torch import Tensor

from mmlt.datasets.transforms import takes_and_gives_bgr
from mmlt.registry import HOOKS
from mmlt.utils import unwrap


@HOOKS.register_module()
class PredictionPicturesHook(VisualizationHook):
    """MMPretrain's ``VisualizationHook``, which draws in RGB and overwrites nothing.

    MMPretrain's draws what the pipeline gives as if it were RGB, though
    pictures of files are BGR, and calls the drawing by the file's name alone,
    so that those of several folders overwrite each other. Here a drawing
    keeps the folders below the dataset's picture folder; where no file is
    known it is called by the sample's number. :class:`mmlt.Runner` puts it in
    MMPretrain's place. Only the first of several processes draws, which is
    told.

    Args:
        enable (bool): Whether to draw. Defaults to False.
        interval (int): Every n-th sample is drawn. Defaults to 5000.
        show (bool): In a window. Defaults to False.
        out_dir (str, optional): Folder for the drawings. Defaults to None,
            the visualizer's backends.
        **kwargs: See ``UniversalVisualizer.visualize_cls``.
    """

    def before_val_epoch(self, runner) -> None:
        """Begin to count."""
        self._begin(runner, runner.val_dataloader)

    def before_test_epoch(self, runner) -> None:
        """Begin to count."""
        self._begin(runner, runner.test_dataloader)

    def _begin(self, runner, loader) -> None:
        self._seen = 0
        self._names: set[str] = set()
        dataset = loader.dataset
        # An unwrapped dataset has one folder, below which no path is there twice.
        self._root = getattr(dataset, 'img_prefix', None) or getattr(dataset, 'data_prefix', {}).get('img_path')
        model = unwrap(runner.model)
        model = model.module if isinstance(model, BaseTTAModel) else model
        to_rgb = getattr(model.data_preprocessor, 'to_rgb', False)
        _, self._bgr = takes_and_gives_bgr(_transforms(dataset), to_rgb)
        if self.enable and get_world_size() > 1:
            runner.logger.warning(
                f'Predictions are drawn by the first of {get_world_size()} processes only, for its share of the '
                'samples: test in one process to draw all.'
            )

    def _draw_samples(self, batch_idx: int, data_batch: dict, data_samples: Sequence[DataSample], step: int = 0):
        if not self.enable:
            return
        images = data_batch['inputs']
        if images[0].ndim == 4:  # several views of every picture, by test-time augmentation
            images = images[0]
        for i, sample in enumerate(data_samples):
            if (self._seen + i) % self.interval == 0:
                self._draw(images[i], sample, step)
        self._seen += len(data_samples)

    def _draw(self, image: Tensor, sample: DataSample, step: int) -> None:
        if image.shape[0] == 1:
            image = image.expand(3, -1, -1)
        elif self._bgr:
            image = image.flip(0)
        name = self._unused(_name(sample, self._root))
        place = {} if self.out_dir is None else dict(out_file=join_path(self.out_dir, f'{name}_{step}.png'))
        self._visualizer.visualize_cls(
            image=image.permute(1, 2, 0).cpu().to(torch.uint8).numpy(),
            data_sample=sample,
            step=step,
            name=name.replace('/', '__'),  # backends make no folders
            **{**self.draw_args, **place},
        )

    def _unused(self, name: str) -> str:
        """A name that nothing has been drawn under."""
        unused, number = name, 1
        while unused in self._names:
            number += 1
            unused = f'{name}-{number}'
        self._names.add(unused)
        return unused


def _transforms(dataset) -> list:
    """The transforms of a dataset, or of the first one that it wraps."""
    while not hasattr(dataset, 'pipeline'):
        inner = getattr(dataset, 'dataset', None) or (getattr(dataset, 'datasets', None) or [None])[0]
        if inner is None:
            return []
        dataset = inner
    return getattr(dataset.pipeline, 'transforms', [])


def _name(sample: DataSample, root: str | None) -> str:
    """A sample's name: the path of its file below a folder, or its number."""
    if (path := sample.get('img_path')) is None:
        return str(sample.get('sample_idx', 0))
    if root and os.path.normpath(path).startswith(os.path.join(os.path.normpath(root), '')):
        path = os.path.relpath(path, root)
    parts = [part.replace(':', '') for part in re.split(r'[\\/]+', path)]
    return '/'.join(part for part in parts if part not in ('', '.', '..'))

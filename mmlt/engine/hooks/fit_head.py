"""Heads that learn by looking at all training features once."""

from __future__ import annotations

import torch
from mmengine.hooks import Hook
from mmengine.model import BaseModel, BaseTTAModel

from mmlt.engine.features import compute_features
from mmlt.errors import InputError
from mmlt.registry import HOOKS
from mmlt.utils import unwrap
from mmlt.utils.classes import check_same_classes
from mmlt.utils.labels import build_dataset, dataset_labels


@HOOKS.register_module()
class FitHeadHook(Hook):
    """Before a test, fit the head on the features of a training set.

    The head has a method ``fit(features, labels)`` and a property ``fitted``,
    as :class:`NCMHead`; one that is fitted already, by its checkpoint, stays as
    it is. The features are those of backbone and neck in eval mode.

    Args:
        dataset (dict): Config of the training set; its pipeline is replaced.
        pipeline (list[dict], optional): Transforms of its images. Defaults to
            None, those of the test dataset.
        batch_size (int, optional): Images a forward pass. Defaults to None, the
            test batch size.

    Raises:
        InputError: The head cannot be fitted, or there is no pipeline.
    """

    def __init__(self, dataset: dict, pipeline: list[dict] | None = None, batch_size: int | None = None):
        if batch_size is not None and batch_size < 1:
            raise InputError(f'FitHeadHook: batch_size is {batch_size}; give at least 1, or None for that of the test.')
        self.dataset, self.pipeline, self.batch_size = dataset, pipeline, batch_size

    def before_test(self, runner) -> None:
        """Fit the head, if it is not fitted yet."""
        model: BaseModel = unwrap(runner.model)
        if not hasattr(model.head, 'fit'):
            raise InputError(
                f'FitHeadHook: {type(model.head).__name__} has nothing to fit; remove the hook, or use a head such as '
                'mmlt.NCMHead.'
            )
        if model.head.fitted:
            return
        loader = runner.test_dataloader
        dataset = build_dataset({**self.dataset, 'pipeline': self._pipeline(runner)})
        metas = {'the training set to fit on': dataset, 'the test dataset': loader.dataset}
        check_same_classes({name: (getattr(d, 'metainfo', None) or {}).get('classes') for name, d in metas.items()})
        labels = torch.from_numpy(dataset_labels(dataset))
        batch_size = loader.batch_size if self.batch_size is None else self.batch_size
        features = compute_features(model, dataset, batch_size, loader.num_workers, 'Features to fit the head')
        model.head.fit(features, labels)
        runner.logger.info(f'{type(model.head).__name__} is fitted on {len(labels)} images.')

    def _pipeline(self, runner) -> list[dict]:
        if self.pipeline is not None:
            return self.pipeline
        pipeline = runner.cfg.test_dataloader.dataset.get('pipeline')
        if pipeline is None or isinstance(runner.model, BaseTTAModel):
            raise InputError(
                'FitHeadHook finds no plain pipeline in test_dataloader.dataset, which is wrapped or augmented: give '
                'the hook a pipeline=[...] of its own.'
            )
        return pipeline

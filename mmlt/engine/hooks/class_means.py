"""Class vectors that start from the class means of training features."""

from __future__ import annotations

import torch
from mmengine.hooks import Hook
from torch import nn

from mmlt.engine.features import compute_features, with_pipeline
from mmlt.errors import InputError
from mmlt.models import CosineClsHead
from mmlt.registry import HOOKS
from mmlt.utils import unwrap
from mmlt.utils.labels import dataset_labels


@HOOKS.register_module()
class ClassMeansHook(Hook):
    """Before a training, start a cosine head from the class means of the training features (LIFT without texts).

    The head is a :class:`CosineClsHead` with ``init='class_means'``. Every
    training image is encoded once, in eval mode, by the backbone as it is at
    the start: adapters that begin at zero do not change it. All processes
    compute the same means. A head whose class vectors came from a checkpoint,
    as in a training that is resumed, stays as it is.

    Args:
        pipeline (list[dict], optional): Transforms of the images. Defaults to
            None, those of the test dataset, else of the validation.
        normalised (bool): See :func:`class_mean_vectors`. Defaults to True.
        batch_size (int, optional): Images a forward pass and process.
            Defaults to None, the train batch size.

    Raises:
        InputError: No head that starts from class means; the train dataset is
            wrapped, or there is no pipeline.
    """

    # After the checkpoint is loaded, before features are cached and the train dataloader is replaced.
    priority = 'VERY_HIGH'

    def __init__(self, pipeline: list[dict] | None = None, normalised: bool = True, batch_size: int | None = None):
        if batch_size is not None and batch_size < 1:
            raise InputError(f'ClassMeansHook: batch_size is {batch_size}; give at least 1, or None.')
        self.pipeline, self.normalised, self.batch_size = pipeline, normalised, batch_size

    def check_run(self, runner) -> None:
        """Whether class means can be computed in this run.

        Raises:
            InputError: See the class.
        """
        self._head(runner)
        self._dataset(runner)

    def before_train(self, runner) -> None:
        """Compute the class means, if the head waits for them."""
        head = self._head(runner)
        if not head.waits_for_features:
            return
        loader = runner.train_dataloader
        labels = torch.from_numpy(dataset_labels(loader.dataset))
        batch_size = loader.batch_size if self.batch_size is None else self.batch_size
        features = compute_features(
            _classifier(runner), self._dataset(runner), batch_size, loader.num_workers, 'Features for class means'
        )
        head.start_from_features(features, labels, self.normalised)
        runner.logger.info(f'The class vectors start from the means of the features of {len(labels)} images.')

    def _head(self, runner) -> CosineClsHead:
        head = getattr(_classifier(runner), 'head', None)
        if not isinstance(head, CosineClsHead) or not head.from_features:
            raise InputError(
                f'ClassMeansHook: {type(head).__name__} does not start from class means; remove the hook, or use '
                "mmlt.CosineClsHead with init='class_means'."
            )
        return head

    def _dataset(self, runner):
        dataset = runner.train_dataloader.dataset
        evaluated = runner.cfg.get('test_dataloader') or runner.cfg.get('val_dataloader') or {}
        pipeline = self.pipeline or evaluated.get('dataset', {}).get('pipeline')
        if pipeline is None or not hasattr(dataset, 'pipeline'):
            raise InputError(
                f'ClassMeansHook finds no pipeline for the images of {type(dataset).__name__}: train on a plain '
                'dataset, and give the hook a pipeline=[...] where the test dataset has none.'
            )
        return with_pipeline(dataset, pipeline)


def _classifier(runner) -> nn.Module:
    """The plain classifier, also inside MORE."""
    model = unwrap(runner.model)
    return getattr(model, 'classifier', model)

"""Test-time augmentation on logits."""

from __future__ import annotations

import torch
from mmengine.model import BaseTTAModel
from mmpretrain.structures import DataSample
from torch import Tensor

from mmlt.errors import InputError
from mmlt.registry import MODELS


@MODELS.register_module()
class LogitTTA(BaseTTAModel):
    """Predict from the mean of the logits of all views of an image (LIFT's test-time ensembling).

    MMPretrain's ``AverageClsScoreTTA`` averages scores, after the softmax. A
    config names it as ``tta_model``, beside a ``tta_pipeline``, and ``--tta``
    of the test tool uses both.

    Args:
        module (dict | nn.Module): A classifier whose ``mode='tensor'`` gives
            logits, as every ``ImageClassifier`` with a head.
        **kwargs: See MMEngine's ``BaseTTAModel``.

    Raises:
        InputError: A model without head.
    """

    def __init__(self, module: dict | torch.nn.Module, **kwargs):
        super().__init__(module, **kwargs)
        if not hasattr(getattr(self.module, 'head', None), '_get_predictions'):
            raise InputError(
                f'LogitTTA averages the logits of a classifier, but {type(self.module).__name__} has no classification '
                'head: use it with an ImageClassifier.'
            )

    @torch.no_grad()
    def test_step(self, data: dict) -> list[DataSample]:
        """Predict a batch.

        Args:
            data (dict): As ``TestTimeAug`` and a collate function make it:
                ``inputs`` and ``data_samples`` hold a batch for every view.

        Returns:
            list[DataSample]: One for every image, see :meth:`merge_preds`.
        """
        views = []
        for i in range(len(data['inputs'])):
            batch = self.module.data_preprocessor({key: value[i] for key, value in data.items()}, False)
            logits = self.module(batch['inputs'], mode='tensor')
            for sample, row in zip(batch['data_samples'], logits):
                sample.set_field(row, 'logits')
            views.append(batch['data_samples'])
        return self.merge_preds(list(zip(*views)))

    def merge_preds(self, data_samples_list: list[tuple[DataSample, ...]]) -> list[DataSample]:
        """Turn the views' logits into predictions, as the classifier's head does.

        Args:
            data_samples_list (list[tuple[DataSample]]): For every image its
                views, with ``logits``.

        Returns:
            list[DataSample]: The first views, with ``pred_score`` and
            ``pred_label``.
        """
        logits = torch.stack([mean_logits([sample.pop('logits') for sample in views]) for views in data_samples_list])
        return self.module.head._get_predictions(logits, [views[0] for views in data_samples_list])


def mean_logits(logits: list[Tensor]) -> Tensor:
    """Mean over the views, in single precision at least.

    Args:
        logits (list[Tensor]): V tensors of one shape.

    Returns:
        Tensor: Of that shape.
    """
    stacked = torch.stack(logits)
    return stacked.to(torch.promote_types(stacked.dtype, torch.float32)).mean(0)

"""Labels that a dataset marks as not to be scored: difficult objects, ignored ones, classes that nobody looked for."""

from __future__ import annotations

from mmcv.transforms import BaseTransform
from mmengine.dataset import BaseDataset
from mmpretrain.datasets import MultiLabelDataset

from mmlt.evaluation.targets import scored_targets
from mmlt.registry import TRANSFORMS


@TRANSFORMS.register_module()
class MarkUnscored(BaseTransform):
    """Write labels, and which are not to be scored, into ``gt_score``, which ``PackInputs`` hands on.

    There are no settings to choose: :func:`mark_unscored` puts it first in the
    pipeline of a multi-label dataset that has ``gt_label_difficult``.

    Args:
        num_classes (int): C.
    """

    def __init__(self, num_classes: int):
        self.num_classes = num_classes

    def transform(self, results: dict) -> dict:
        """Set ``gt_score``, see :func:`scored_targets`."""
        results['gt_score'] = scored_targets(results, self.num_classes)
        return results


def mark_unscored(dataset) -> None:
    """Let every multi-label dataset inside this one tell which labels are not to be scored.

    Args:
        dataset (Dataset): A dataset, or a wrapper of such; others stay as they
            are.
    """
    for inner in (*getattr(dataset, 'datasets', ()), *(getattr(dataset, k, None) for k in ('dataset', '_dataset'))):
        if inner is not None:
            mark_unscored(inner)
    transforms = getattr(getattr(dataset, 'pipeline', None), 'transforms', None)
    if not isinstance(dataset, MultiLabelDataset) or transforms is None:
        return
    if any(isinstance(t, MarkUnscored) for t in transforms):
        return
    dataset.full_init()
    # Of the base class: others compose their picture as well.
    infos = (BaseDataset.get_data_info(dataset, i) for i in range(len(dataset)))
    if any(info.get('gt_label_difficult') for info in infos):
        transforms.insert(0, MarkUnscored(len(dataset.metainfo['classes'])))

"""What components and the command line let one choose from.

The command line is read before torch and the MM packages are imported, so nothing of them is here.
"""

from __future__ import annotations

from dataclasses import dataclass

ANCHOR_METHODS = ('anss', 'cutoff', 'random')
EXPORT_FORMATS = {'torchscript': '.pt', 'torch-export': '.pt2', 'onnx': '.onnx'}  # with the endings of their files
PRETRAINED = 'pretrained'  # in place of a checkpoint


@dataclass(frozen=True)
class ShotProtocol:
    """How classes are split by their training counts, and what is averaged.

    Args:
        many (int): A class with at least this many images is many-shot.
        few (int): A class with at most this many is few-shot.
        average (str): 'class' for the mean of per-class accuracies, 'sample'
            for the share of right samples.
    """

    many: int
    few: int
    average: str


SHOT_PROTOCOLS = {
    'standard': ShotProtocol(many=101, few=19, average='class'),  # OLTR, BALLAD, LIFT: > 100, 20..100, < 20
    'vl-ltr': ShotProtocol(many=100, few=20, average='sample'),  # >= 100, 21..99, <= 20
    'lpt': ShotProtocol(many=101, few=20, average='sample'),  # > 100, 21..100, <= 20
    'db': ShotProtocol(many=100, few=19, average='class'),  # multi-label, Wu et al. 2020: >= 100, 20..99, < 20
}

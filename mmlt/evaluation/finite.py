"""Scores that are no numbers are not scored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from mmlt.evaluation.targets import picture_name


def first_not_finite(samples: Sequence[Mapping]) -> int | None:
    """The first sample whose scores are not finite; waits for the device once.

    Args:
        samples (Sequence[Mapping | DataSample]): Predictions, of which those
            with a tensor ``pred_score`` are looked at.

    Returns:
        int | None: Its place, None where there is no such sample.
    """
    places = [i for i, sample in enumerate(samples) if torch.is_tensor(sample.get('pred_score'))]
    if not places:
        return None
    finite = torch.stack([samples[i].get('pred_score').isfinite().all() for i in places]).tolist()
    return next((i for i, fine in zip(places, finite) if not fine), None)


def scores_not_finite(sample: Mapping) -> str:
    """The sentence that ends a test whose scores are not finite.

    Args:
        sample (Mapping | DataSample): The first such.

    Returns:
        str: Names the picture.
    """
    scores = sample.get('pred_score').float()
    wrong = scores[~scores.isfinite()]
    return (
        f'The scores of {picture_name(sample)} are not finite ({len(wrong)} of {len(scores)} are NaN or infinite, the '
        f'first is {float(wrong[0])}), so there is no result: weights that are NaN, from a training that diverged, '
        'half precision that overflows (test without --amp), or a damaged picture do this.'
    )

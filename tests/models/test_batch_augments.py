"""Mixup and CutMix are MMPretrain's, draw for draw."""

import numpy as np
import pytest
import torch
from mmpretrain.models.utils.batch_augments import CutMix, Mixup

from mmlt.models import batch_augments
from mmlt.models.data_preprocessor import CLIPDataPreprocessor


@pytest.mark.parametrize(
    ('theirs', 'options'),
    [(Mixup, {}), (CutMix, {}), (CutMix, dict(cutmix_minmax=(0.2, 0.8))), (CutMix, dict(correct_lam=False))],
)
def test_same_draws_same_result(theirs, options):
    ours = getattr(batch_augments, theirs.__name__)
    images, scores = torch.rand(6, 3, 16, 12), torch.nn.functional.one_hot(torch.arange(6) % 4, 4)
    results = []
    for kind in (theirs, ours):
        np.random.seed(3)
        torch.manual_seed(3)
        results.append(kind(alpha=1.0, **options)(images.clone(), scores))
    assert all(torch.equal(a, b) for a, b in zip(*results))
    assert not torch.equal(results[0][0], images)


def test_the_preprocessor_takes_them():
    mixed = [dict(type='Mixup', alpha=0.8), dict(type='CutMix', alpha=1.0), dict(type='ResizeMix', alpha=1.0)]
    settings = dict(augments=mixed, probs=[0.3, 0.3, 0.2])
    augments = CLIPDataPreprocessor(batch_augments=settings, num_classes=3).batch_augments.augments
    assert [type(a).__module__.split('.')[0] for a in augments[:3]] == ['mmlt', 'mmlt', 'mmpretrain']
    assert augments[0].alpha == 0.8 and augments[3] is None
    assert settings['augments'] is mixed and mixed[0]['type'] == 'Mixup'
    assert CLIPDataPreprocessor().batch_augments is None

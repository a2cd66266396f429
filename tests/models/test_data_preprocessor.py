"""CLIP's normalisation, and cached features that pass."""

import open_clip
import torch
from mmpretrain.registry import MODELS
from mmpretrain.structures import DataSample

from mmlt.models import CLIPDataPreprocessor


def naive(bgr, mean, std):
    """(x / 255 - mean) / std of the RGB picture, in float64, with open_clip's units of 0..1."""
    rgb = bgr.double()[:, [2, 1, 0]] / 255
    out = torch.empty_like(rgb)
    for c in range(3):
        out[:, c] = (rgb[:, c] - mean[c]) / std[c]
    return out


def test_defaults_are_clips_statistics_on_bgr_bytes():
    images = torch.randint(0, 256, (3, 3, 5, 4), dtype=torch.uint8)
    preprocessor = MODELS.build(dict(type='mmlt.CLIPDataPreprocessor'))
    assert isinstance(preprocessor, CLIPDataPreprocessor)
    expected = naive(images, open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD)
    for training in (True, False):
        out = preprocessor(dict(inputs=images, data_samples=None), training)
        assert out['inputs'].dtype == torch.float32
        assert (out['inputs'] - expected).abs().max() <= 2e-6


def test_a_list_of_images_is_stacked():
    images = torch.randint(0, 256, (2, 3, 5, 4), dtype=torch.uint8)
    preprocessor = CLIPDataPreprocessor()
    assert torch.equal(preprocessor({'inputs': list(images)})['inputs'], preprocessor({'inputs': images})['inputs'])


def test_own_statistics_and_rgb():
    images = torch.randint(0, 256, (2, 3, 4, 4), dtype=torch.uint8)
    out = CLIPDataPreprocessor(mean=[10.0] * 3, std=[50.0] * 3, to_rgb=False)({'inputs': images})['inputs']
    assert torch.allclose(out, (images.float() - 10) / 50, atol=1e-6)


def test_labels_and_batch_augmentation_still_work():
    preprocessor = CLIPDataPreprocessor(
        num_classes=4, batch_augments=dict(augments=[dict(type='Mixup', alpha=1.0)], probs=[1.0])
    )
    images = torch.randint(0, 256, (2, 3, 4, 4), dtype=torch.uint8)
    samples = [DataSample().set_gt_label(y) for y in (1, 3)]
    out = preprocessor(dict(inputs=images, data_samples=samples), training=True)
    scores = torch.stack([s.gt_score for s in out['data_samples']])
    assert torch.allclose(scores.sum(1), torch.ones(2))
    assert scores[0, 0] == scores[0, 2] == 0
    share = scores[0, 1]
    plain = preprocessor(dict(inputs=images, data_samples=samples))['inputs']
    assert torch.allclose(out['inputs'][0], share * plain[0] + (1 - share) * plain[1], atol=1e-5)


def test_cached_features_pass_as_they_are():
    features = torch.randn(3, 8)
    data = dict(inputs=features, data_samples=[DataSample().set_gt_label(1)] * 3)
    out = CLIPDataPreprocessor()(data, training=True)
    assert out['inputs'] is features
    assert out['data_samples'] is data['data_samples']

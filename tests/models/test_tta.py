"""Five crops, one prediction: the mean of logits, not of scores."""

import math

import pytest
import torch
from mmengine.dataset import default_collate, pseudo_collate
from mmpretrain.registry import MODELS, TRANSFORMS
from mmpretrain.structures import DataSample

from mmlt import InputError
from mmlt.models import LogitTTA
from mmlt.models.tta import mean_logits

POSITIONS = ('top-left', 'top-right', 'bottom-left', 'bottom-right', 'centre')


def classifier(**head):
    return MODELS.build(
        dict(
            type='ImageClassifier',
            backbone=dict(type='mmlt.OpenCLIPVision', model='mmlt-tiny-vit'),
            head=dict(dict(type='LinearClsHead', num_classes=4, in_channels=64), **head),
            data_preprocessor=dict(type='mmlt.CLIPDataPreprocessor'),
        )
    ).eval()


def five_crops(n=3, collate=default_collate):
    pipeline = TRANSFORMS.build(
        dict(
            type='TestTimeAug',
            transforms=[
                [dict(type='mmlt.FiveCropPart', crop_size=32, position=p) for p in POSITIONS],
                [dict(type='mmpretrain.PackInputs')],
            ],
        )
    )
    images = torch.randint(0, 256, (n, 36, 40, 3), dtype=torch.uint8).numpy()
    return images, collate([pipeline(dict(img=image, gt_label=i)) for i, image in enumerate(images)])


@pytest.mark.parametrize('collate', [default_collate, pseudo_collate])
@pytest.mark.parametrize('head', [{}, dict(type='mmlt.CosineClsHead', init='random')])
def test_prediction_is_the_softmax_of_the_mean_of_logits(collate, head):
    model = classifier(**head)
    images, data = five_crops(collate=collate)
    predictions = LogitTTA(model).test_step(data)
    corners = [(0, 0), (0, 8), (4, 0), (4, 8), (2, 4)]
    for i, (image, sample) in enumerate(zip(images, predictions)):
        views = []
        for top, left in corners:
            crop = torch.from_numpy(image[top : top + 32, left : left + 32]).permute(2, 0, 1)[None]
            inputs = model.data_preprocessor(dict(inputs=crop), False)['inputs']
            views.append(model.head(model.extract_feat(inputs))[0].detach().double().tolist())
        mean = [sum(column) / 5 for column in zip(*views)]
        total = sum(math.exp(z) for z in mean)
        expected = [math.exp(z) / total for z in mean]
        assert sample.pred_score.tolist() == pytest.approx(expected, abs=1e-5)
        assert sample.pred_label.tolist() == [expected.index(max(expected))]
        assert sample.gt_label.tolist() == [i]
        assert 'logits' not in sample


def test_logits_are_averaged_not_scores():
    samples = [DataSample().set_gt_label(0) for _ in range(2)]
    for sample, row in zip(samples, ([9.0, 0, 0, 0], [0.0, 4, 0, 0])):
        sample.set_field(torch.tensor(row), 'logits')
    (merged,) = LogitTTA(classifier()).merge_preds([tuple(samples)])
    assert merged.pred_score.tolist() == pytest.approx(torch.tensor([4.5, 2.0, 0, 0]).softmax(0).tolist(), abs=1e-6)


def test_mean_is_in_single_precision():
    views = [torch.tensor([20.125, 1.0], dtype=torch.bfloat16), torch.tensor([20.0, 1.0], dtype=torch.bfloat16)]
    assert mean_logits(views).dtype == torch.float32
    assert mean_logits(views).tolist() == [20.0625, 1.0]  # bfloat16 has no 20.0625


def test_multi_label_head_decides_by_its_own_rule():
    model = classifier(type='MultiLabelLinearClsHead', thr=0.5)
    _, data = five_crops(2)
    scores = [sample.pred_score for sample in LogitTTA(model).test_step(data)]
    single = [model.test_step({k: v[i] for k, v in data.items()}) for i in range(5)]
    for i, score in enumerate(scores):
        logits = torch.stack([view[i].pred_score for view in single]).logit().mean(0)
        assert torch.allclose(score, logits.sigmoid(), atol=1e-5)


def test_model_without_head_is_refused():
    towers = dict(
        backbone=dict(type='mmlt.OpenCLIPVision', model='mmlt-tiny-vit'),
        data_preprocessor=dict(type='mmlt.CLIPDataPreprocessor'),
    )
    with pytest.raises(InputError, match='ImageClassifier has no classification head'):
        LogitTTA(dict(type='mmpretrain.ImageClassifier', **towers))

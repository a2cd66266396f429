"""Pretraining on images with captions: class-wise, instance-wise, and zero-shot prediction."""

import csv

import open_clip
import pytest
import torch
import torch.nn.functional as F
from mmengine.dataset import ConcatDataset, default_collate, pseudo_collate
from mmengine.optim import OptimWrapper
from mmpretrain.registry import MODELS
from mmpretrain.structures import DataSample

from mmlt import InputError
from mmlt.datasets import ImageTextDataset
from mmlt.models import ContrastivePretrainer
from mmlt.utils.class_info import ClassInfo

MODEL = 'mmlt-tiny-vit'
CAPTIONS = ['an apple', 'a green pear', 'a plum', 'one more apple on a table', 'an apple', 'a pear']
LABELS = [0, 1, 2, 0, 0, 1]


def make(**kwargs):
    towers = {key: dict(type=f'mmlt.{name}', model=MODEL) for key, name in TOWERS.items()}
    return MODELS.build(dict(type='mmlt.ContrastivePretrainer', **towers, **kwargs))


TOWERS = dict(backbone='OpenCLIPVision', text='OpenCLIPText')


def samples(captions=CAPTIONS, labels=LABELS):
    out = []
    for i, caption in enumerate(captions):
        sample = DataSample(metainfo=dict(sample_idx=i))
        if caption is not None:
            sample.set_field(caption, 'caption')
        if labels is not None:
            sample.set_gt_label(labels[i])
        out.append(sample)
    return out


def features(model, images, captions):
    """Unit vectors by open_clip's own full towers."""
    tokens = open_clip.get_tokenizer(MODEL)(list(captions))
    image, text = model.backbone.visual(images), model.text.clip.encode_text(tokens)
    return F.normalize(image, dim=-1), F.normalize(text, dim=-1)


def naive(image, text, labels, scale):
    same = torch.tensor([[float(a == b) for b in labels] for a in labels], dtype=image.dtype)
    targets = same / same.sum(1, keepdim=True)
    logits = scale * image @ text.t()
    return -((targets * logits.log_softmax(1)).sum(1) + (targets * logits.t().log_softmax(1)).sum(1)).mean() / 2


def test_class_wise_loss_and_gradients():
    model = make().double()
    images = torch.randn(6, 3, 32, 32, dtype=torch.float64)
    out = model(images, samples(), mode='loss')
    scale = model.text.clip.logit_scale.exp()
    expected = naive(*features(model, images, CAPTIONS), LABELS, scale)
    assert (out['loss'] - expected).abs() <= 1e-11
    assert (out['logit_scale'] - 1 / 0.07).abs() <= 1e-5
    assert not out['logit_scale'].requires_grad
    parameters = dict(model.named_parameters())
    assert all(p.requires_grad for p in parameters.values())
    actual = torch.autograd.grad(out['loss'], list(parameters.values()))
    for name, a, b in zip(parameters, actual, torch.autograd.grad(expected, list(parameters.values()))):
        assert b.abs().max() > 1e-7, name
        assert (a - b).abs().max() <= 1e-10 * max(1, b.abs().max()), name


def test_instance_wise_loss_is_clips():
    model = make().double()
    images = torch.randn(6, 3, 32, 32, dtype=torch.float64)
    loss = model(images, samples(labels=None), mode='loss')['loss']
    expected = open_clip.ClipLoss()(*features(model, images, CAPTIONS), model.text.logit_scale)
    assert (loss - expected).abs() <= 1e-11
    assert (loss - naive(*features(model, images, CAPTIONS), LABELS, model.text.logit_scale)).abs() > 1e-3


def test_tensor_mode_gives_image_features():
    model = make()
    images = torch.randn(2, 3, 32, 32)
    out = model(images)
    assert isinstance(out, tuple)
    assert torch.equal(out[-1], model.backbone.visual(images))


def test_prediction_is_zero_shot():
    model = make(templates=['a photo of the {}', '{}']).eval()
    model.head.set_class_info(ClassInfo(['apple', 'pear', 'plum']))
    images = torch.randn(6, 3, 32, 32)
    given = samples(captions=[None] * 6)
    out = model(images, given, mode='predict')
    assert all(a is b for a, b in zip(out, given))
    names = ('apple', 'pear', 'plum')
    texts = sum(features(model, images, [t.format(n) for n in names])[1] for t in ('a photo of the {}', '{}'))
    image = features(model, images, ['x'])[0]
    expected = (model.text.logit_scale * image @ F.normalize(texts, dim=-1).t()).softmax(1)
    scores = torch.stack([s.pred_score for s in out])
    assert (scores - expected).abs().max() <= 1e-5
    assert [int(s.pred_label) for s in out] == expected.argmax(1).tolist()


def test_prediction_without_classes():
    with pytest.raises(InputError, match='does not know the classes'):
        make().eval()(torch.randn(1, 3, 32, 32), samples()[:1], mode='predict')


def test_missing_captions():
    with pytest.raises(InputError, match=r"no caption: end the pipeline with PackInputs\(algorithm_keys=\('caption'"):
        make()(torch.randn(6, 3, 32, 32), samples(captions=[None] * 6), mode='loss')


def test_towers_come_from_one_model_and_start_from_its_file(clip_file):
    torch.manual_seed(1)
    towers = {k: dict(type=f'mmlt.{n}', model=MODEL, pretrained=clip_file) for k, n in TOWERS.items()}
    model = ContrastivePretrainer(**towers)
    assert model.backbone._towers is model.text._towers
    clip = model.text._towers.clip
    model.init_weights()
    expected = open_clip.create_model(MODEL, pretrained=clip_file)
    for (name, a), b in zip(clip.named_parameters(), expected.parameters()):
        assert torch.equal(a, b), name


def test_other_loss():
    model = make(loss=dict(type='mmlt.ContrastiveLoss', loss_weight=0.5))
    images = torch.randn(6, 3, 32, 32)
    loss = model(images, samples(), mode='loss')['loss']
    expected = naive(*features(model, images, CAPTIONS), LABELS, model.text.logit_scale)
    assert (loss - 0.5 * expected).abs() <= 1e-5


def test_a_learned_scale_can_come_back_from_above_100():
    model = make()
    model.text.clip.logit_scale.data.fill_(4.62)
    out = model(torch.randn(6, 3, 32, 32), samples(), mode='loss')
    assert out['logit_scale'].item() == pytest.approx(100)
    out['loss'].backward()
    assert model.text.clip.logit_scale.grad.abs() > 1e-3


# With datasets and MMPretrain's pipelines


@pytest.fixture
def dataset(picture_folder):
    """Build an ImageTextDataset of given rows of (image, caption[, label])."""

    def build(name, rows):
        path = picture_folder / name
        with open(path, 'w', newline='') as f:
            csv.writer(f).writerows([('image', 'caption', 'label')[: len(rows[0])], *rows])
        pipeline = [
            dict(type='LoadImageFromFile'),
            dict(type='Resize', scale=(32, 32)),
            dict(type='PackInputs', algorithm_keys=('caption',)),
        ]
        return ImageTextDataset(str(path), data_prefix=str(picture_folder / 'images'), pipeline=pipeline)

    return build


ROWS = [
    ('apple/0.png', 'an apple'),
    ('pear/1.png', 'a pear, green'),
    ('plum/0.png', 'a plum'),
    ('apple/1.png', 'an apple'),
]


def batch(dataset, collate=default_collate):
    return collate([dataset[i] for i in range(len(dataset))])


def normalised(model, data):
    return model.data_preprocessor(dict(inputs=torch.stack(list(data['inputs']))))['inputs']


@pytest.mark.parametrize('collate', [default_collate, pseudo_collate])
def test_rows_with_labels_are_class_wise(dataset, collate):
    model = make()
    data = batch(dataset('captions.csv', [(*row, y) for row, y in zip(ROWS, (0, 1, 2, 0))]), collate)
    optimizer = OptimWrapper(torch.optim.SGD(model.parameters(), lr=0.1))
    images = normalised(model, data)
    captions = [caption for _, caption in ROWS]
    expected = naive(*features(model, images, captions), [0, 1, 2, 0], model.text.logit_scale).item()
    before = [p.clone() for p in model.parameters()]
    log = model.train_step(data, optimizer)
    assert log['loss'].item() == pytest.approx(expected, abs=1e-4)
    assert log['logit_scale'].item() == pytest.approx(1 / 0.07, rel=1e-4)
    assert all(not torch.equal(a, b) for a, b in zip(model.parameters(), before))


def test_rows_without_labels_are_instance_wise(dataset):
    model = make()
    data = batch(dataset('captions.csv', ROWS))
    assert 'gt_label' not in data['data_samples'][0]
    images = normalised(model, data)
    expected = open_clip.ClipLoss()(*features(model, images, [row[1] for row in ROWS]), model.text.logit_scale)
    loss = model(**model.data_preprocessor(data, True), mode='loss')['loss']
    assert (loss - expected).abs() <= 1e-4


def test_pairs_of_two_datasets_are_not_positives_of_each_other(dataset):
    """The index of a sample is counted anew in every part of a ConcatDataset."""
    model = make()
    joined = ConcatDataset([dataset('a.csv', ROWS[:2]), dataset('b.csv', ROWS[2:])])
    data = batch(joined)
    images = normalised(model, data)
    expected = open_clip.ClipLoss()(*features(model, images, [row[1] for row in ROWS]), model.text.logit_scale)
    loss = model(**model.data_preprocessor(data, True), mode='loss')['loss']
    assert (loss - expected).abs() <= 1e-4


def test_instance_wise_without_meta_keys():
    """PackInputs(meta_keys=()) leaves no sample_idx."""
    given = samples(labels=None)
    bare = [DataSample(caption=s.caption) for s in given]
    model = make()
    images = torch.randn(6, 3, 32, 32)
    expected = model(images, given, mode='loss')['loss']
    assert torch.allclose(model(images, bare, mode='loss')['loss'], expected)


def test_validation_step(dataset):
    model = make()
    model.head.set_class_info(ClassInfo(['apple', 'pear', 'plum']))
    data = batch(dataset('captions.csv', [(*row, y) for row, y in zip(ROWS, (0, 1, 2, 0))]))
    out = model.eval().val_step(data)
    assert [int(s.gt_label) for s in out] == [0, 1, 2, 0]
    assert all(s.pred_score.shape == (3,) and s.pred_score.sum().item() == pytest.approx(1) for s in out)

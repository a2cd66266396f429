"""ShotAccuracy as MMEngine drives it: data samples in, metrics out, counts from wherever they are."""

import json

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.logging import MessageHub
from mmengine.registry import DefaultScope
from mmpretrain.structures import DataSample

from mmlt import InputError
from mmlt.evaluation import ShotAccuracy, expected_calibration_error, shot_accuracy
from mmlt.registry import METRICS

COUNTS = [200, 101, 100, 50, 20, 19, 3]
NAMES = tuple(f'name {c}' for c in range(7))
META = {'classes': NAMES, 'class_counts': COUNTS}


def batch(labels, scores) -> list[dict]:
    """What MMPretrain's heads hand to the evaluator."""
    samples = []
    for y, s in zip(labels, scores):
        sample = DataSample().set_gt_label(int(y)).set_pred_score(s).set_pred_label(s.argmax(keepdim=True))
        samples.append(sample.to_dict())
    return samples


def draw(size=240, num_classes=7, seed=0):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(size) % num_classes
    logits = torch.randn(size, num_classes, generator=generator)
    logits[torch.arange(size), labels] += 1.0
    return labels, logits.softmax(-1)


def run(metric, labels, scores, size=None, batch_size=32) -> dict:
    for at in range(0, len(labels), batch_size):
        metric.process(None, batch(labels[at : at + batch_size], scores[at : at + batch_size]))
    return metric.evaluate(len(labels) if size is None else size)


def metric_of(meta, **kwargs) -> ShotAccuracy:
    metric = ShotAccuracy(**kwargs)
    metric.dataset_meta = meta
    return metric


@pytest.fixture
def running_config():
    """Sets the config that runs, as MMEngine's RuntimeInfoHook does; yields the function that sets it."""
    hub = MessageHub.get_instance('test of shot metric')
    yield lambda cfg: hub.update_info('cfg', Config(cfg).pretty_text)
    del MessageHub._instance_dict['test of shot metric']


@pytest.fixture
def no_running_config():
    yield MessageHub.get_instance('test of shot metric without config')
    del MessageHub._instance_dict['test of shot metric without config']


@pytest.mark.parametrize('protocol', ['standard', 'vl-ltr', 'lpt'])
def test_evaluate_gives_the_functions_values(protocol):
    labels, scores = draw()
    result = run(metric_of(META, protocol=protocol), labels, scores)
    confidence, predictions = scores.max(-1)
    expected = shot_accuracy(labels.numpy(), predictions.numpy(), COUNTS, protocol)
    del expected['per_class']
    expected['ece'] = expected_calibration_error(confidence.double().numpy(), (predictions == labels).numpy())
    expected['nll'] = np.mean([-np.log(float(s[y])) for y, s in zip(labels, scores)])
    assert set(result) == {f'shot/{k}' for k in expected}
    for key, value in expected.items():
        assert result[f'shot/{key}'] == pytest.approx(value, rel=1e-9), key
        assert type(result[f'shot/{key}']) is float
    assert 20 < result['shot/all'] < 90  # neither trivial


def test_standard_is_the_default_and_the_prefix_can_be_set():
    labels, scores = draw()
    default = run(metric_of(META), labels, scores)
    standard = run(metric_of(META, protocol='standard', prefix='val'), labels, scores)
    assert {f'val{k.removeprefix("shot")}': v for k, v in default.items()} == standard


def test_padding_of_the_last_batch_is_dropped():
    labels, scores = draw(50)
    padded_labels, padded_scores = torch.cat([labels, labels[:14]]), torch.cat([scores, scores[:14]])
    metric = metric_of(META)
    assert run(metric, padded_labels, padded_scores, size=50) == run(metric_of(META), labels, scores)
    assert metric.report['num_samples'] == 50
    assert run(metric_of(META), padded_labels, padded_scores) != run(metric_of(META), labels, scores)


def test_second_evaluation_starts_from_nothing():
    labels, scores = draw()
    metric = metric_of(META)
    first = run(metric, labels, scores)
    other = run(metric, *draw(seed=1))
    assert other != first
    assert run(metric, labels, scores) == first
    assert metric.report['num_samples'] == 240


def test_labels_without_scores():
    samples = [{'gt_label': torch.tensor([y]), 'pred_label': torch.tensor([p])} for y, p in ((0, 0), (1, 0), (2, 2))]
    metric = metric_of({'classes': 'abc', 'class_counts': [200, 50, 3]})
    metric.process(None, samples)
    result = metric.evaluate(3)
    assert result['shot/all'] == pytest.approx(200 / 3)
    assert (result['shot/many'], result['shot/medium'], result['shot/few']) == (100, 0, 100)
    assert 'shot/ece' not in result and 'shot/nll' not in result


def test_nll_of_a_prediction_without_doubt():
    metric = metric_of({'classes': 'abc', 'class_counts': [200, 50, 3]})
    result = run(metric, torch.tensor([0, 1]), torch.tensor([[1.0, 0, 0], [0.25, 0.5, 0.25]]))
    assert result['shot/nll'] == pytest.approx(np.log(2) / 2)
    wrong = run(metric, torch.tensor([2, 1]), torch.tensor([[1.0, 0, 0], [0.25, 0.5, 0.25]]))
    # A probability of zero is the smallest normal single: 126 log 2, and the report stays valid JSON.
    assert wrong['shot/nll'] == pytest.approx((126 + 1) * np.log(2) / 2)
    json.dumps(metric.report, allow_nan=False)


def test_half_precision_scores():
    labels, scores = draw()
    result = run(metric_of(META), labels, scores.half())
    assert result['shot/ece'] == pytest.approx(run(metric_of(META), labels, scores)['shot/ece'], abs=0.1)


def test_fewer_test_classes_than_trained():
    labels, scores = draw()
    keep = labels != 3
    metric = metric_of(META)
    result = run(metric, labels[keep], scores[keep])
    assert metric.report['per_class'][3]['accuracy'] is None
    rest = [c['accuracy'] for c in metric.report['per_class'] if c['class'] != 'name 3']
    assert result['shot/balanced'] == pytest.approx(np.mean(rest))
    json.dumps(metric.report, allow_nan=False)


def test_report():
    labels, scores = draw()
    metric = metric_of(META, protocol='lpt')
    result = run(metric, labels, scores)
    report = json.loads(json.dumps(metric.report, allow_nan=False))
    assert report == metric.report
    assert list(report) == [
        'protocol', 'num_samples', 'measure', 'metrics', 'meanings', 'classes_per_shot', 'per_class'
    ]  # fmt: skip
    assert list(report['meanings']) == list(report['metrics'])
    assert report['meanings']['all'] == report['meanings']['sample_accuracy'] == 'top-1, accuracy over samples'
    assert report['meanings']['few'] == 'top-1 of few-shot classes, accuracy over samples'
    assert report['meanings']['balanced'] == 'top-1, mean over classes'
    assert report['protocol'] == 'lpt'
    assert report['num_samples'] == 240
    assert {f'shot/{k}': v for k, v in report['metrics'].items()} == result
    assert report['classes_per_shot'] == {'many': 2, 'medium': 2, 'few': 3}
    assert [c['class'] for c in report['per_class']] == list(NAMES)
    assert [c['train_images'] for c in report['per_class']] == COUNTS
    assert [c['shot'] for c in report['per_class']] == ['many'] * 2 + ['medium'] * 2 + ['few'] * 3
    right = (scores.argmax(-1) == labels).numpy()
    for c, entry in enumerate(report['per_class']):
        assert entry['accuracy'] == pytest.approx(100 * right[labels.numpy() == c].mean())


# Where the counts come from


def test_counts_from_the_argument_have_precedence():
    labels, scores = draw()
    metric = metric_of(META, class_counts=[3, 19, 20, 50, 100, 101, 200])
    run(metric, labels, scores)
    assert [c['train_images'] for c in metric.report['per_class']] == [3, 19, 20, 50, 100, 101, 200]
    assert metric.report['classes_per_shot'] == {'many': 2, 'medium': 3, 'few': 2}


def test_counts_from_the_argument_without_dataset_meta():
    labels, scores = draw()
    metric = ShotAccuracy(class_counts=COUNTS)
    result = run(metric, labels, scores)
    assert result == run(metric_of(META), labels, scores)
    assert [c['class'] for c in metric.report['per_class']] == [str(c) for c in range(7)]


def three_classes():
    labels, scores = draw(60, 3)
    return labels, scores, {'classes': ('apple', 'pear', 'plum')}


@pytest.mark.parametrize(
    'kind',
    [
        dict(type='mmlt.LongTailedDataset'),
        dict(type='mmpretrain.CustomDataset'),
        dict(type='CustomDataset'),
        dict(type='CustomDataset', lazy_init=True),
    ],
    ids=lambda k: '-'.join(map(str, k.values())),
)
def test_counts_from_the_running_configs_train_dataset(picture_folder, running_config, kind):
    dataset = dict(kind, ann_file='train.txt', data_root=str(picture_folder), data_prefix='images', pipeline=[])
    running_config(dict(default_scope='mmpretrain', train_dataloader=dict(batch_size=2, dataset=dataset)))
    labels, scores, meta = three_classes()
    metric = metric_of(meta)
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        run(metric, labels, scores)
    assert [c['train_images'] for c in metric.report['per_class']] == [6, 3, 1]
    assert [c['class'] for c in metric.report['per_class']] == ['apple', 'pear', 'plum']


def test_counts_of_a_wrapped_train_dataset(picture_folder, running_config):
    inner = dict(
        type='mmlt.LongTailedDataset', ann_file='train.txt', data_root=str(picture_folder), data_prefix='images'
    )
    wrapped = dict(type='RepeatDataset', times=20, dataset=inner)
    running_config(dict(train_dataloader=dict(dataset=wrapped)))
    labels, scores, meta = three_classes()
    metric = metric_of(meta)
    run(metric, labels, scores)
    assert [c['train_images'] for c in metric.report['per_class']] == [120, 60, 20]
    assert metric.report['classes_per_shot'] == {'many': 1, 'medium': 2, 'few': 0}


def test_dataset_meta_has_precedence_over_the_running_config(running_config):
    running_config(dict(train_dataloader=dict(dataset=dict(type='mmlt.NoSuchDataset'))))
    labels, scores = draw()
    metric = metric_of(META)
    run(metric, labels, scores)
    assert [c['train_images'] for c in metric.report['per_class']] == COUNTS


@pytest.mark.parametrize('cfg', [dict(), dict(train_dataloader=None), dict(train_dataloader=dict(batch_size=2))])
def test_config_that_cannot_tell_the_counts(running_config, cfg):
    running_config(cfg)
    labels, scores, meta = three_classes()
    with pytest.raises(InputError, match=r'ShotAccuracy does not know.*class_counts=\[\.\.\.\]'):
        run(metric_of(meta), labels, scores)


@pytest.mark.parametrize('meta', [None, {'classes': ('apple', 'pear', 'plum')}])
def test_nobody_knows_the_counts(no_running_config, meta):
    labels, scores, _ = three_classes()
    with pytest.raises(InputError, match=r'ShotAccuracy does not know.*train_dataloader'):
        run(metric_of(meta), labels, scores)


def test_a_class_without_training_images_is_few_shot(picture_folder, running_config):
    (picture_folder / 'train.txt').write_text('apple/0.png 0\nplum/0.png 2\n')
    dataset = dict(type='mmpretrain.CustomDataset', ann_file='train.txt', data_root=str(picture_folder))
    running_config(dict(train_dataloader=dict(dataset=dict(dataset, data_prefix='images'))))
    labels, scores, meta = three_classes()
    metric = metric_of(meta)
    run(metric, labels, scores)
    assert [c['train_images'] for c in metric.report['per_class']] == [1, 0, 1]
    assert metric.report['classes_per_shot']['few'] == 3


# Refusals


def test_fewer_counts_than_the_model_has_classes():
    labels, scores = draw()
    with pytest.raises(InputError, match='training counts of 5 classes, but the model predicts 7'):
        run(metric_of(META, class_counts=COUNTS[:5]), labels % 5, scores)
    samples = [{'gt_label': torch.tensor([6]), 'pred_label': torch.tensor([0])}]
    metric = ShotAccuracy(class_counts=COUNTS[:5])
    metric.process(None, samples)
    with pytest.raises(InputError, match='training counts of 5 classes, but the model predicts 7'):
        metric.evaluate(1)


@pytest.mark.parametrize('num_counts', [5, 9])
def test_counts_of_another_number_than_the_datasets_classes(num_counts):
    # Predictions of the first five classes only, so that nothing but the class names tells that there are seven.
    metric = metric_of({'classes': NAMES}, class_counts=[*COUNTS, 2, 1][:num_counts])
    metric.process(None, [{'gt_label': torch.tensor([y]), 'pred_label': torch.tensor([y])} for y in range(5)])
    with pytest.raises(InputError, match=f'{num_counts} classes.* 7'):
        metric.evaluate(5)


def test_unknown_protocol():
    with pytest.raises(InputError, match="no shot protocol 'oltr'"):
        ShotAccuracy(protocol='oltr')


def test_registered():
    metric = METRICS.build(dict(type='mmlt.ShotAccuracy', protocol='lpt', class_counts=COUNTS))
    assert type(metric) is ShotAccuracy and metric.protocol == 'lpt'


# Samples that are not scored, scores that are no numbers


@pytest.mark.parametrize('protocol', ['standard', 'vl-ltr', 'lpt'])
def test_sample_accuracy_beside_the_mean_over_classes(protocol):
    # 9 of 10 pictures are of class 0 and right, the one of class 1 is wrong.
    metric = metric_of({'classes': 'ab', 'class_counts': [200, 3]}, protocol=protocol)
    result = run(metric, torch.tensor([0] * 9 + [1]), torch.tensor([[0.8, 0.2]] * 10))
    assert (result['shot/sample_accuracy'], result['shot/balanced']) == (pytest.approx(90), 50)
    assert result['shot/all'] == (50 if protocol == 'standard' else pytest.approx(90))


@pytest.mark.parametrize('mark', [-1, -100, torch.iinfo(torch.long).min])
def test_samples_with_a_negative_label_are_left_out(mark):
    labels, scores = draw(100)
    marked = labels.clone()
    marked[[0, 50, 99]] = mark
    keep = marked >= 0
    metric, other = metric_of(META), metric_of(META)
    padded = torch.cat([marked, marked[:14]]), torch.cat([scores, scores[:14]])
    assert run(metric, *padded, size=100) == run(other, labels[keep], scores[keep])
    assert metric.report == other.report and metric.report['num_samples'] == 97
    with pytest.raises(InputError, match='No test image has a label to be scored'):
        run(metric_of(META), torch.full((5,), mark), scores[:5])


@pytest.mark.parametrize('value', [float('nan'), float('inf'), -float('inf')])
def test_scores_that_are_not_finite_name_the_first_picture(value):
    labels, scores = draw(100)
    scores[40, 2] = scores[45, 3] = scores[80] = value
    metric = metric_of(META)
    for at in range(0, 100, 16):
        samples = batch(labels[at : at + 16], scores[at : at + 16])
        metric.process(None, [{**s, 'img_path': f'data/{at + i}.jpg'} for i, s in enumerate(samples)])
    with pytest.raises(InputError, match=rf"scores of 'data/40\.jpg' are not finite \(1 of 7 .* first is {value}"):
        metric.evaluate(100)
    assert metric.report == {}
    padding = torch.cat([scores[:40], scores[80:82]])  # what only pads the last batch does not matter
    assert 'shot/nll' in run(metric_of(META), labels[:42], padding, size=40)


@pytest.mark.parametrize(('labels', 'number'), [([0, 1], 2), ([], 0), (None, 0)])
def test_a_picture_without_just_one_label_is_named(labels, number):
    sample = {'img_path': 'x.jpg', 'pred_score': torch.ones(7) / 7}
    if labels is not None:
        sample['gt_label'] = torch.tensor(labels)
    with pytest.raises(InputError, match=rf"with one label, but 'x\.jpg' has {number}: use mmlt\.ShotMAP"):
        metric_of(META).process(None, [sample])

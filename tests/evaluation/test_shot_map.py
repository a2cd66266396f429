"""Mean average precision by shots: a loop in float64, scikit-learn, MMEngine's evaluator, report and hook."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.evaluator import Evaluator
from mmengine.logging import MessageHub
from mmpretrain.evaluation import VOCAveragePrecision
from mmpretrain.structures import DataSample

from mmlt import InputError
from mmlt.engine import ShotReportHook
from mmlt.evaluation import SHOT_PROTOCOLS, ShotMAP, average_precision, shot_average_precision, shot_groups
from mmlt.registry import METRICS

COUNTS = [300, 100, 99, 20, 19, 1]
META = {'classes': tuple(f'name {c}' for c in range(6)), 'class_counts': COUNTS}


def naive_ap(targets, scores) -> float:
    """Sum over the distinct scores, from the largest, of (recall - last recall) * precision."""
    positives, last, area = sum(bool(t) for t in targets), 0.0, 0.0
    for threshold in sorted(set(scores), reverse=True):
        chosen = [bool(t) for t, s in zip(targets, scores) if s >= threshold]
        recall = sum(chosen) / positives
        area += (recall - last) * sum(chosen) / len(chosen)
        last = recall
    return 100 * area


def draw(n=90, num_classes=6, seed=0, ties=False):
    rng = np.random.default_rng(seed)
    targets = rng.random((n, num_classes)) < 0.3
    scores = rng.random((n, num_classes)) + 0.5 * targets
    return targets, (np.round(scores, 1) if ties else scores).astype(np.float32)


@pytest.mark.parametrize('ties', [False, True])
def test_average_precision_is_the_naive_one(ties):
    targets, scores = draw(ties=ties)
    for t, s in zip(targets.T, scores.T):
        assert average_precision(t, s) == pytest.approx(naive_ap(t, s.tolist()), rel=1e-12)


@pytest.mark.parametrize('ties', [False, True])
def test_average_precision_is_that_of_scikit_learn(ties):
    metrics = pytest.importorskip('sklearn.metrics')
    targets, scores = draw(ties=ties, seed=1)
    for t, s in zip(targets.T, scores.T):
        assert average_precision(t, s) == pytest.approx(100 * metrics.average_precision_score(t, s), rel=1e-12)


def test_average_precision_at_the_ends():
    assert average_precision([1, 1, 0], np.array([3.0, 2.0, 1.0])) == 100
    assert average_precision([0, 0, 1], np.array([3.0, 2.0, 1.0])) == pytest.approx(100 / 3)
    assert average_precision([0, 0, 1, 0], np.full(4, 0.5)) == 25  # constant scores: the share of positives
    assert np.isnan(average_precision([0, 0], np.array([1.0, 2.0])))
    assert np.isnan(average_precision([], np.array([])))


def test_protocol_db():
    assert shot_groups(COUNTS, SHOT_PROTOCOLS['db']).tolist() == [0, 0, 1, 1, 2, 2]


def test_means_by_shot():
    targets, scores = draw()
    result = shot_average_precision(targets, scores, COUNTS)
    each = [naive_ap(t, s.tolist()) for t, s in zip(targets.T, scores.T)]
    assert result['per_class'] == pytest.approx(each)
    assert result['all'] == pytest.approx(np.mean(each)) and result['worst_class'] == pytest.approx(min(each))
    for i, shot in enumerate(('many', 'medium', 'few')):
        assert result[shot] == pytest.approx(np.mean(each[2 * i : 2 * i + 2]))


def test_classes_without_test_images_are_left_out():
    targets, scores = draw()
    targets[:, [0, 4, 5]] = False
    result = shot_average_precision(targets, scores, COUNTS)
    each = result['per_class']
    assert np.isnan(each[[0, 4, 5]]).all() and 'few' not in result
    assert result['many'] == each[1] and result['all'] == pytest.approx(each[1:4].mean())
    with pytest.raises(InputError, match='No test image has any of the classes'):
        shot_average_precision(np.zeros((3, 6)), scores[:3], COUNTS)


def samples_of(targets, scores, hot=False):
    out = []
    for t, s in zip(targets, torch.from_numpy(scores)):
        sample = DataSample().set_pred_score(s)
        sample = sample.set_gt_score(torch.from_numpy(t)) if hot else sample.set_gt_label(np.flatnonzero(t))
        out.append(sample.to_dict())
    return out


def run(metric, targets, scores, size=None, **kwargs):
    samples = samples_of(targets, scores, **kwargs)
    for at in range(0, len(samples), 32):
        metric.process(None, samples[at : at + 32])
    return metric.evaluate(size or len(samples))


def metric_of(meta=META, **kwargs):
    metric = METRICS.build(dict(type='mmlt.ShotMAP', **kwargs))
    metric.dataset_meta = meta
    return metric


@pytest.mark.parametrize('hot', [False, True])
def test_metric_gives_the_functions_values(hot):
    targets, scores = draw()
    targets[3] = False  # an image without labels
    expected = shot_average_precision(targets, scores, COUNTS)
    del expected['per_class']
    result = run(metric_of(), targets, scores, hot=hot)
    assert result == {f'shot/{k}': pytest.approx(v, rel=1e-12) for k, v in expected.items()}
    assert all(type(v) is float for v in result.values())


def test_padding_of_the_last_batch_is_dropped_and_the_prefix_can_be_set():
    targets, scores = draw()
    padded = np.concatenate([targets, targets[:7]]), np.concatenate([scores, scores[:7]])
    result = run(metric_of(prefix='test'), *padded, size=90)
    assert result == {k.replace('shot', 'test'): v for k, v in run(metric_of(), targets, scores).items()}


def test_report():
    targets, scores = draw()
    targets[:, 5] = False
    metric = metric_of(protocol='standard')
    result = run(metric, targets, scores)
    report = json.loads(json.dumps(metric.report, allow_nan=False))
    assert report['protocol'] == 'standard' and report['num_samples'] == 90 and report['measure'] == 'ap'
    assert {f'shot/{k}': v for k, v in report['metrics'].items()} == result
    assert report['classes_per_shot'] == {'many': 1, 'medium': 3, 'few': 2}
    assert [c['class'] for c in report['per_class']] == list(META['classes'])
    assert [c['train_images'] for c in report['per_class']] == COUNTS
    assert report['per_class'][5]['ap'] is None
    assert report['per_class'][0]['ap'] == pytest.approx(naive_ap(targets[:, 0], scores[:, 0].tolist()))


def test_hook_writes_table_json_and_picture(tmp_path, capsys):
    targets, scores = draw()
    metric = metric_of()
    result = run(metric, targets, scores)
    messages = []
    runner = SimpleNamespace(
        test_evaluator=Evaluator([metric]),
        cfg=SimpleNamespace(filename='configs/my-run.py'),
        work_dir=str(tmp_path),
        logger=SimpleNamespace(info=messages.append),
    )
    ShotReportHook().after_test_epoch(runner, result)
    assert json.loads((tmp_path / 'shot_report.json').read_text()) == metric.report
    assert (tmp_path / 'shot_report.png').stat().st_size > 10000
    out = capsys.readouterr().out
    assert 'mAP in percent, 90 test images, protocol db' in out
    assert 'many (2)' in out and 'worst class' in out and 'balanced' not in out
    assert f' {result["shot/few"]:.1f} ' in out


@pytest.fixture
def running_config():
    hub = MessageHub.get_instance('test of shot map')
    yield lambda cfg: hub.update_info('cfg', Config(cfg).pretty_text)
    del MessageHub._instance_dict['test of shot map']


def test_counts_of_a_dataset_that_does_not_tell(running_config, tmp_path):
    (tmp_path / 'train.json').write_text(
        json.dumps(
            {
                'metainfo': {'classes': ['a', 'b']},
                'data_list': [{'img_path': 'x', 'gt_label': [0, 1]}, {'img_path': 'y', 'gt_label': [0]}],
            }
        )
    )
    dataset = dict(type='mmpretrain.MultiLabelDataset', ann_file=str(tmp_path / 'train.json'))
    running_config({'train_dataloader': {'dataset': dataset}})
    metric = metric_of({'classes': ('a', 'b')})
    run(metric, *draw(num_classes=2))
    assert [c['train_images'] for c in metric.report['per_class']] == [2, 1]


@pytest.mark.parametrize(
    ('meta', 'kwargs', 'sentence'),
    [
        (META, dict(class_counts=[1, 2]), 'counts of 2 classes, but the model predicts 6'),
        ({'classes': ('a', 'b')}, dict(class_counts=COUNTS), 'but the dataset has 2 classes'),
        ({}, dict(protocol='oltr'), "no shot protocol 'oltr'"),
    ],
)
def test_errors(meta, kwargs, sentence):
    with pytest.raises(InputError, match=sentence):
        run(metric_of(meta, **kwargs), *draw())


def test_counts_that_nobody_knows(running_config):
    running_config({})
    with pytest.raises(InputError, match=r'ShotMAP does not know .* give class_counts'):
        run(metric_of({}), *draw())


def test_labels_without_scores():
    with pytest.raises(InputError, match='ShotMAP needs the scores'):
        ShotMAP().process(None, [{'gt_label': torch.tensor([0]), 'pred_label': torch.tensor([0])}])


# Labels that are not to be scored, scores that are no numbers


def draw_with_difficult(seed=0):
    """Samples with VOC's difficult labels, some of which are labels as well; hot targets with -1."""
    targets, scores = draw(seed=seed)
    rng = np.random.default_rng(seed + 100)
    difficult = rng.random(targets.shape) < 0.2
    marked = np.where(difficult & ~targets, -1, targets).astype(float)
    samples = samples_of(targets, scores)
    for sample, own in zip(samples, difficult):
        sample['gt_label_difficult'] = np.flatnonzero(own).tolist()
    return samples, marked, scores


def test_difficult_labels_are_left_out():
    samples, marked, scores = draw_with_difficult()
    metric = metric_of()
    metric.process(None, samples)
    result = metric.evaluate(len(samples))
    for c, entry in enumerate(metric.report['per_class']):
        known = marked[:, c] >= 0
        assert 0 < (~known).sum() < len(known)
        expected = naive_ap(marked[known, c], scores[known, c].tolist())
        assert entry['ap'] == pytest.approx(expected, rel=1e-12)
    # MMPretrain's own rule for VOC gives the same.
    theirs = VOCAveragePrecision(average=None)
    theirs.process(None, samples)
    each = theirs.evaluate(len(samples))['multi-label/AP_classwise']
    assert [c['ap'] for c in metric.report['per_class']] == pytest.approx(each, rel=1e-5)
    for mark in (-1.0, float('nan')):
        hot = samples_of(np.where(marked < 0, mark, marked), scores, hot=True)
        metric.process(None, hot)
        assert metric.evaluate(len(hot)) == result


def test_a_difficult_object_by_hand():
    # Ordered by score: right, difficult, wrong, right. Without the difficult one: (1/1 + 2/3) / 2.
    metric = metric_of({'classes': ('a',), 'class_counts': [5]})
    for score, labels, difficult in ((0.9, [0], []), (0.8, [], [0]), (0.7, [], []), (0.6, [0], [])):
        sample = DataSample().set_pred_score(torch.tensor([score])).set_gt_label(np.array(labels)).to_dict()
        metric.process(None, [{**sample, 'gt_label_difficult': difficult}])
    assert metric.evaluate(4)['shot/all'] == pytest.approx(100 * (1 + 2 / 3) / 2)
    assert metric.report['num_samples'] == 3


def test_scores_that_are_not_finite_name_the_first_picture():
    targets, scores = draw()
    scores[[33, 70], 1] = np.nan
    samples = [{**s, 'sample_idx': i} for i, s in enumerate(samples_of(targets, scores))]
    for ordered, first in ((samples, 33), (samples[::-1], 70)):
        metric = metric_of()
        metric.process(None, ordered)
        with pytest.raises(InputError, match=f'scores of picture {first} are not finite'):
            metric.evaluate(len(samples))


def test_a_label_that_is_no_class_is_named():
    sample = {'pred_score': torch.zeros(6), 'gt_label': torch.tensor([2, -1]), 'img_path': 'x.jpg'}
    with pytest.raises(InputError, match=r"gt_label of 'x\.jpg' has the label -1, outside \[0, 6\)"):
        metric_of().process(None, [sample])

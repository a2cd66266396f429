"""Evaluations under the Runner: which figures there will be, scores that are no numbers, several protocols at once."""

import json
import re
import subprocess
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.evaluator import Evaluator
from mmpretrain.evaluation import Accuracy, SingleLabelMetric
from mmpretrain.registry import METRICS

from mmlt import InputError
from mmlt.checkpoints import read_checkpoint
from mmlt.datasets import LongTailedDataset
from mmlt.engine import CheckpointHook, Runner
from mmlt.engine.metric_keys import result_keys
from mmlt.evaluation import ShotAccuracy

BEST = 'default_hooks.checkpoint.save_best='


def best(work='work_dirs/a') -> list[str]:
    return sorted(re.sub(r'_epoch_\d+\.pth', '', p.name) for p in Path(work).glob('best_*'))


def test_the_report_of_a_training_stays(two_stages, train_tool, test_tool):
    """Without a folder of its own only a test of the training's result writes where the training did."""
    train_tool.main(['b.py', '--cfg-options', 'train_cfg.max_epochs=2', 'default_hooks.checkpoint.max_keep_ckpts=2'])
    work = Path('work_dirs/b')
    report = work / 'shot_report.json'
    own, earlier = (str(work / f'epoch_{epoch}.pth') for epoch in (2, 1))
    for arguments, folder in (
        ([own, '--tta'], 'tta'),
        ([earlier], 'test'),
        ([own, '--cfg-options', 'model.head.logit_scale=3.0'], 'test'),
        ([own], ''),
        ([earlier, '--work-dir', str(work)], ''),
    ):
        report.write_text('of the training')
        test_tool.main(['b.py', *arguments])
        assert (work / folder / 'shot_report.json').read_text() != 'of the training'
        assert (report.read_text() == 'of the training') == bool(folder)
    (work / 'run.json').write_text('damaged')
    test_tool.main(['b.py', own])  # as its sentence says


@pytest.mark.parametrize('kind', ['EMAHook', 'mmengine.EMAHook'])
def test_augmentation_sees_averaged_weights(two_stages, train_tool, test_tool, kind):
    """Those of the checkpoint, which are what a test without the hook has."""
    hooks = f"custom_hooks=[dict(type='{kind}', momentum=0.5)]"
    train_tool.main(['a.py', '--no-test', '--cfg-options', 'train_cfg.max_epochs=2', hooks])
    reports = []
    for own in (hooks, 'custom_hooks=[]'):
        test_tool.main(['a.py', 'work_dirs/a/epoch_2.pth', '--tta', '--work-dir', 'tested', '--cfg-options', own])
        reports.append(json.loads(Path('tested/shot_report.json').read_text())['metrics'])
    assert reports[0] == reports[1] and reports[0]['nll'] > 0
    checkpoint = read_checkpoint('work_dirs/a/epoch_2.pth')
    name = next(k for k in checkpoint['state_dict'] if k.endswith('conv1.weight'))
    assert not torch.equal(checkpoint['state_dict'][name], checkpoint['ema_state_dict'][f'module.{name}'])
    if kind == 'EMAHook':  # MMPretrain's
        origin = hooks.replace('0.5', '0.5, evaluate_on_ema=False')
        with pytest.raises(SystemExit, match='the EMAHook has evaluate_on_ema=False: leave out --tta'):
            test_tool.main(['a.py', 'work_dirs/a/epoch_2.pth', '--tta', '--cfg-options', origin])


# The checkpoint that is best by validation


@pytest.mark.parametrize(
    ('save_best', 'kept'),
    [
        ('auto', ['best_shot_all']),
        ('shot/all', ['best_shot_all']),
        ('[shot/all,shot/nll]', ['best_shot_all', 'best_shot_nll']),
    ],
)
def test_the_figures_and_their_rules_are_known(two_stages, train_tool, save_best, kept):
    short = ['train_cfg.max_epochs=1', 'train_cfg.val_interval=1']
    train_tool.main(['a.py', '--no-test', '--cfg-options', BEST + save_best, *short])
    assert best() == kept
    result = json.loads(Path('work_dirs/a/run.json').read_text())
    assert kept[0] in json.dumps(result)  # the first figure decides which is the training's result


@pytest.mark.parametrize(
    ('save_best', 'sentence'),
    [
        ('shot/al', "save_best is 'shot/al', but the figures that the validation will have are shot/all, shot/medium"),
        ('shot/many', 'shot/nll: choose one of them. The validation split has no picture of many-shot classes'),
        ('[shot/all,nll]', "save_best is 'nll'"),
        ('accuracy/top1', "save_best is 'accuracy/top1', but"),
    ],
)
def test_a_figure_that_will_not_be_there_is_told_before_the_training(two_stages, train_tool, save_best, sentence):
    counts = 'val_evaluator.0.class_counts=[50,3,3]'
    options = [BEST + save_best, 'default_hooks.checkpoint.rule=greater', counts]
    with pytest.raises(SystemExit, match=re.escape(sentence)):
        train_tool.main(['a.py', '--cfg-options', *options])
    assert not list(Path('work_dirs/a').glob('*.pth'))


@pytest.mark.parametrize(
    ('key', 'rule'),
    [
        ('shot/all', 'greater'),
        ('shot-vl-ltr/few', 'greater'),
        ('val/sample_accuracy', 'greater'),
        ('shot/worst_class', 'greater'),
        ('shot/nll', 'less'),
        ('shot/ece', 'less'),
        ('single-label/f1-score', 'greater'),
        ('multi-label/mAP', 'greater'),
        ('accuracy/top1', 'greater'),
        ('small_loss', 'less'),
    ],
)
def test_rules(key, rule):
    assert CheckpointHook(save_best=key).rules == [rule]
    assert CheckpointHook(save_best=('shot/balanced', key)).rules == ['greater', rule]
    assert CheckpointHook(save_best=key, rule='less').rules == ['less']  # what is given wins


@pytest.mark.parametrize(
    ('kwargs', 'sentence'),
    [
        (dict(save_best='my/figure'), "'my/figure', and nobody knows whether more of it is better: give .*rule="),
        (dict(save_best='shot/all', rule='more'), "rule is 'more'; choose 'greater' or 'less'"),
        (dict(save_best=['a', 'b', 'c'], rule=['less', 'less']), 'Number of "rule" must be 1 or the same'),
        (dict(save_best=['auto', 'shot/all']), 'Only support one "auto"'),
        (dict(save_best=3), '"save_best" should be a str'),
    ],
)
def test_settings_that_cannot_be(kwargs, sentence):
    with pytest.raises(InputError, match=sentence):
        CheckpointHook(**kwargs)


@METRICS.register_module(force=True)
class Quiet(Accuracy):
    """A metric of somebody's own, of which nothing is known before it runs."""

    default_prefix = 'own'


def test_keys_before_a_run(picture_folder):
    dataset = LongTailedDataset(
        'test.txt', train_ann_file='train.txt', data_root=str(picture_folder), data_prefix='images', pipeline=[]
    )
    shot, stock = ShotAccuracy(protocol='lpt'), SingleLabelMetric(items=('f1-score', 'support'))
    evaluator = Evaluator([shot, stock, Accuracy(topk=(1,))])
    evaluator.dataset_meta = dataset.metainfo
    keys, complete = result_keys(evaluator.metrics, dataset)
    names = ('all', 'few', 'balanced', 'sample_accuracy', 'worst_class', 'harmonic_mean', 'ece', 'nll')
    assert keys == [*(f'shot/{n}' for n in names), 'single-label/f1-score', 'single-label/support', 'accuracy/top1']
    assert complete and shot.results == stock.results == [] and shot.report == {}
    keys, complete = result_keys([shot, Quiet()], dataset)
    assert keys == [f'shot/{n}' for n in names] and not complete


# Scores that are not finite


@pytest.fixture
def broken(two_stages, train_tool):
    """A checkpoint with one weight that is NaN."""
    train_tool.main(['a.py', '--no-test', '--no-validate', '--cfg-options', 'train_cfg.max_epochs=1'])
    path = Path('work_dirs/a/epoch_1.pth')
    checkpoint = read_checkpoint(path)
    key = next(k for k in checkpoint['state_dict'] if k.endswith('conv1.weight'))
    checkpoint['state_dict'][key][0, 0, 0, 0] = float('nan')
    torch.save(checkpoint, 'broken.pth')
    return key


@pytest.mark.parametrize('evaluator', ['mmlt.ShotAccuracy', 'Accuracy'])
@pytest.mark.parametrize('tta', [False, True])
def test_a_broken_weight_ends_any_test(broken, test_tool, evaluator, tta):
    options = [f'test_evaluator.0.type={evaluator}', *(['tta_model.type=mmlt.LogitTTA'] if tta else ())]
    pattern = rf"scores of '.*/images/apple/6\.png' are not finite \(3 of 3 .*The weight '(module\.)?{broken}' is not"
    with pytest.raises(SystemExit, match=pattern):
        test_tool.main(['a.py', 'broken.pth', *(['--tta'] if tta else []), '--cfg-options', *options])
    assert not list(Path('work_dirs/a').rglob('shot_report.json'))


@pytest.mark.slow
def test_two_processes_stop_together(broken, repo, launcher_env):
    done = subprocess.run(
        [
            'bash',
            repo / 'tools/dist_test.sh',
            'a.py',
            'broken.pth',
            '2',
            '--cfg-options',
            'test_evaluator.0.type=Accuracy',
        ],
        env={**launcher_env, 'PYTHONPATH': str(repo)},
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode != 0
    told = re.findall(r"mmlt: The scores of '(\S+)'", done.stderr)
    assert len(told) == 2 and all(name.endswith('apple/6.png') for name in told), done.stderr


# Several protocols


def test_two_protocols_in_one_evaluator(two_stages, test_tool, capsys):
    cfg = Config.fromfile('a.py')
    cfg.test_evaluator = [dict(type='mmlt.ShotAccuracy'), dict(type='mmlt.ShotAccuracy', protocol='vl-ltr')]
    cfg.dump('b.py')
    metrics = test_tool.main(['b.py'])
    assert metrics['shot/sample_accuracy'] == metrics['shot-vl-ltr/all'] == metrics['shot-vl-ltr/sample_accuracy']
    first, second = (
        json.loads(Path(f'work_dirs/b/{n}.json').read_text()) for n in ('shot_report', 'shot-vl-ltr_report')
    )
    assert (first['protocol'], second['protocol']) == ('standard', 'vl-ltr')
    assert Path('work_dirs/b/shot-vl-ltr_report.png').exists()
    out = capsys.readouterr().out
    assert 'protocol vl-ltr (many, medium, few and all: accuracy over samples)' in ' '.join(out.split())
    assert "ShotAccuracy with the protocol 'vl-ltr' are named 'shot-vl-ltr/...'" in out


def test_shot_metrics_that_cannot_be_told_apart():
    build = Runner.__new__(Runner).build_evaluator
    twice = [dict(type='mmlt.ShotAccuracy', protocol='lpt', class_counts=c) for c in ([1, 2], [2, 1])]
    with pytest.raises(InputError, match="prefix 'shot' and the protocol 'lpt' stand in one evaluator: leave one out"):
        build(twice)
    twice[1]['prefix'] = 'other'
    assert [m.prefix for m in build(twice).metrics] == ['shot', 'other']
    mixed = build([dict(type='mmlt.ShotAccuracy'), dict(type='mmlt.ShotMAP')])
    for _ in range(2):  # an evaluator that is built is left as it is
        assert [m.prefix for m in build(mixed).metrics] == ['shot', 'shot-db']

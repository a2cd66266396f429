"""MOREHook: schedule, diagnosis and merged checkpoint; in small runs, alone, resumed and in two processes."""

import json
import math
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from mmengine.config import Config
from mmengine.logging import MessageHub
from mmpretrain.registry import MODELS
from mmpretrain.structures import DataSample
from PIL import Image

from mmlt.checkpoints import read_checkpoint
from mmlt.checkpoints.split_state import merge_state_dict
from mmlt.engine import MOREHook
from mmlt.errors import InputError
from mmlt.utils.class_info import ClassInfo

CLASSES = ('apple', 'pear', 'plum')


@pytest.fixture
def config(two_stages):
    """MORE on the two towers of a.py: 2 iterations an epoch, 3 epochs."""
    (two_stages / 'more.py').write_text(
        """
_base_ = ['./a.py']
model = dict(_delete_=True, type='mmlt.MORE', classifier={{_base_.model}}, peak=20.0)
default_hooks = dict(
    more=dict(type='mmlt.MOREHook', interval=2), checkpoint=dict(max_keep_ckpts=-1), logger=dict(interval=1))
"""
    )
    return two_stages


def load(path):
    return read_checkpoint(path)


def scalars(checkpoint, name):
    return checkpoint['message_hub']['log_scalars'][f'train/{name}'].data[0].tolist()


def alphas(total, iterations, peak=20.0):
    return pytest.approx([peak * 3 * math.sin(math.pi * t / total) for t in iterations])


def differ(a, b):
    return max((a[k].float() - b[k].float()).abs().max().item() for k in a if a[k].numel())


# A run


def test_run_ends_with_numbers_picture_and_merged_checkpoint(config, train_tool, test_tool, capsys):
    metrics = train_tool.main(['more.py', '--work-dir', 'out'])
    log = next(Path('out').glob('*/*.log')).read_text()
    last = load('out/epoch_3.pth')
    assert scalars(last, 'more_alpha') == alphas(6, range(6))
    assert 'more_alpha: 60.0000' in log and 'loss_more: ' in log and 'more_discrepancy_few: ' in log
    history = json.loads(Path('out/more_discrepancy.json').read_text())
    assert history['iteration'] == [2, 4, 6] and history['alpha'] == alphas(6, (1, 3, 5))
    assert history['many'] == history['medium'] == [None] * 3  # 6, 3 and 1 images
    assert all(v > 0 for v in history['few'])
    assert scalars(last, 'more_discrepancy_few') == pytest.approx(history['few'])
    assert Image.open('out/more_discrepancy.png').size == (1170, 650)

    merged, split = load('out/merged.pth'), last['state_dict']
    assert set(merged) == {'meta', 'state_dict'}
    assert differ(merged['state_dict'], merge_state_dict(split)) == 0
    assert merged['meta']['dataset_meta']['classes'] == CLASSES
    assert "type='ImageClassifier'" in merged['meta']['cfg'] and 'mmlt.MORE' not in merged['meta']['cfg']
    assert 'Equivalence check: on 4 images the logits of merged and split weights differ by at most' in log
    assert Path('out/merged.pth').stat().st_size < Path('out/epoch_3.pth').stat().st_size / 2

    # the plain config tests it with the same result, and goes on from it
    assert test_tool.main(['a.py', 'out/merged.pth', '--work-dir', 't']) == pytest.approx(metrics)
    # so does the config of MORE, for which it is a plain checkpoint
    assert test_tool.main(['more.py', 'out/merged.pth', '--work-dir', 't']) == pytest.approx(metrics)


def test_training_starts_from_a_plain_checkpoint(config, train_tool):
    train_tool.main(['a.py', '--work-dir', 'plain', '--no-test'])
    options = ['load_from=plain/epoch_3.pth', 'optim_wrapper.optimizer.lr=0.0', 'train_cfg.max_epochs=1']
    train_tool.main(['more.py', '--work-dir', 'out', '--no-test', '--cfg-options', *options])
    plain, merged = load('plain/epoch_3.pth')['state_dict'], load('out/merged.pth')['state_dict']
    assert set(plain) == set(merged)
    assert differ({k: v for k, v in plain.items() if 'steps' not in k}, merged) == 0


def test_resume_in_mid_schedule(config, train_tool):
    train_tool.main(['more.py', '--work-dir', 'whole', '--no-test'])
    train_tool.main(['more.py', '--work-dir', 'again', '--no-test', '--resume', 'whole/epoch_2.pth'])
    whole, again = load('whole/epoch_3.pth'), load('again/epoch_3.pth')
    assert scalars(again, 'more_alpha') == scalars(whole, 'more_alpha') == alphas(6, range(6))
    first, second = (json.loads(Path(f'{d}/more_discrepancy.json').read_text()) for d in ('whole', 'again'))
    assert second['iteration'] == [2, 4, 6]
    assert second['few'][:2] == first['few'][:2]
    assert second['few'][2] == pytest.approx(first['few'][2], rel=0.2)  # MMEngine restores no random state


def test_control_merges_and_has_no_discrepancy(config, train_tool):
    train_tool.main(['more.py', '--work-dir', 'out', '--no-test', '--cfg-options', 'model.peak=0.0'])
    last = load('out/epoch_3.pth')
    assert scalars(last, 'more_alpha') == [0.0] * 6
    assert not any('discrepancy' in k or 'loss_more' in k for k in last['message_hub']['log_scalars'])
    assert not Path('out/more_discrepancy.png').exists()
    assert differ(load('out/merged.pth')['state_dict'], merge_state_dict(last['state_dict'])) == 0


def test_averaged_weights_are_merged(config, train_tool):
    (config / 'ema.py').write_text("_base_ = ['./more.py']\ncustom_hooks = [dict(type='EMAHook', momentum=0.3)]\n")
    train_tool.main(['ema.py', '--work-dir', 'out', '--no-test'])
    last = load('out/epoch_3.pth')
    averaged = merge_state_dict(last['state_dict'])
    trained = merge_state_dict(
        {k.removeprefix('module.'): v for k, v in last['ema_state_dict'].items() if k != 'steps'}
    )
    merged = load('out/merged.pth')['state_dict']
    assert differ(merged, averaged) == 0
    weight = 'backbone.visual.conv1.weight'
    assert not torch.equal(merged[weight], trained[weight])


@pytest.mark.parametrize(
    'arguments', [['--amp'], ['--cfg-options', 'optim_wrapper.accumulative_counts=2']], ids='-'.join
)
def test_optimizer_wrappers(config, train_tool, arguments):
    train_tool.main(['more.py', '--work-dir', 'out', '--no-test', *arguments])
    state = load('out/epoch_3.pth')['state_dict']
    tails = [v for k, v in state.items() if k.endswith('.0.B')]
    assert len(tails) > 15 and all(t.any() and torch.isfinite(t).all() for t in tails)


def test_two_processes_take_the_steps_of_one(config, repo, launcher_env):
    """Three steps of plain SGD on the same global batches, with alpha above zero in two of them."""
    options = ['optim_wrapper.optimizer.momentum=0.0', 'optim_wrapper.optimizer.lr=0.001', 'param_scheduler=None']
    for command, name, size in (
        ([sys.executable, repo / 'tools/train.py', 'more.py'], 'one', 8),
        (['bash', repo / 'tools/dist_train.sh', 'more.py', '2'], 'two', 4),
    ):
        command += [
            '--work-dir',
            name,
            '--no-test',
            '--cfg-options',
            *options,
            'model.peak=2.0',
            f'train_dataloader.batch_size={size}',
        ]
        done = subprocess.run(command, capture_output=True, text=True, timeout=400, env=launcher_env)
        assert done.returncode == 0, done.stdout[-1500:] + done.stderr[-3000:]
    one, two, start = (load(f'{d}/epoch_{e}.pth') for d, e in (('one', 3), ('two', 3), ('one', 1)))
    assert scalars(one, 'more_alpha') == scalars(two, 'more_alpha') == alphas(3, range(3), 2.0)
    assert scalars(two, 'loss_more')[-1] > 0
    changes = {k: (one['state_dict'][k] - v).norm() for k, v in start['state_dict'].items() if v.is_floating_point()}
    for name, change in changes.items():
        error = (one['state_dict'][name] - two['state_dict'][name]).norm()
        assert error <= 1e-4 * change + 1e-7, name
    assert sum(c > 0 for c in changes.values()) > 40
    # every process summed up its own half
    first, second = (json.loads(Path(f'{d}/more_discrepancy.json').read_text()) for d in ('one', 'two'))
    assert second['iteration'] == first['iteration'] == [2, 3]
    assert second['few'] == pytest.approx(first['few'], rel=1e-3)


# Bad input in a run


def test_split_checkpoint_in_the_plain_config_is_named(config, train_tool, test_tool):
    train_tool.main(['more.py', '--work-dir', 'out', '--no-test', '--cfg-options', 'train_cfg.max_epochs=1'])
    with pytest.raises(SystemExit) as error:
        test_tool.main(['a.py', 'out/epoch_1.pth', '--work-dir', 't'])
    assert 'checkpoint of MORE that is not merged' in str(error.value) and 'mmlt publish' in str(error.value)
    # as the start of a training, which would otherwise begin with random weights
    with pytest.raises(SystemExit, match='not merged'):
        train_tool.main(['a.py', '--work-dir', 'p', '--cfg-options', 'load_from=out/epoch_1.pth'])
    # and where other layers were split
    with pytest.raises(SystemExit, match='not merged.*layers, exclude'):
        train_tool.main(
            ['more.py', '--work-dir', 'q', '--cfg-options', 'load_from=out/epoch_1.pth', 'model.layers=backbone.*']
        )
    with pytest.raises(SystemExit, match='of shape'):
        train_tool.main(['more.py', '--work-dir', 'r', '--cfg-options', 'load_from=out/epoch_1.pth', 'model.rank=2'])


def test_resume_from_merged_weights_is_refused(config, train_tool):
    train_tool.main(['more.py', '--work-dir', 'out', '--no-test', '--cfg-options', 'train_cfg.max_epochs=1'])
    with pytest.raises(SystemExit, match='Cannot resume'):
        train_tool.main(['more.py', '--work-dir', 'again', '--resume', 'out/merged.pth'])
    cfg = Config.fromstring(load('out/epoch_1.pth')['meta']['cfg'], '.py')
    runner = SimpleNamespace(_resume=True, _load_from='out/merged.pth', model=MODELS.build(cfg.model))
    with pytest.raises(InputError, match='low-rank parts are gone.*load_from'):
        MOREHook().after_load_checkpoint(runner, load('out/merged.pth'))
    MOREHook().after_load_checkpoint(runner, load('out/epoch_1.pth'))
    runner._resume = False
    MOREHook().after_load_checkpoint(runner, load('out/merged.pth'))


def test_hook_without_more_is_named(config, train_tool):
    (config / 'wrong.py').write_text("_base_ = ['./a.py']\ndefault_hooks = dict(more=dict(type='mmlt.MOREHook'))\n")
    with pytest.raises(SystemExit, match="MOREHook belongs to a model of type 'mmlt.MORE', but this one is ImageClass"):
        train_tool.main(['wrong.py', '--work-dir', 'out'])


def test_more_without_the_hook_is_named(config, train_tool):
    (config / 'wrong.py').write_text(
        "_base_ = ['./a.py']\nmodel = dict(_delete_=True, type='mmlt.MORE', classifier={{_base_.model}})\n"
    )
    with pytest.raises(SystemExit, match='alpha was never set'):
        train_tool.main(['wrong.py', '--work-dir', 'out'])


# Alone


class Dataset:
    def __init__(self, metainfo=None, labels=(0, 0, 1)):
        self.metainfo, self.labels = metainfo or {}, labels

    def get_gt_labels(self):
        return self.labels


def small(num_classes=3, **kwargs):
    return MODELS.build(
        dict(
            type='mmlt.MORE',
            classifier=dict(
                type='ImageClassifier',
                backbone=dict(type='mmlt.CIFARResNet', depth=8, base_channels=4),
                neck=dict(type='GlobalAveragePooling'),
                head=dict(type='LinearClsHead', num_classes=num_classes, in_channels=16),
            ),
            **kwargs,
        )
    )


def fake_runner(model, max_iters=10, metainfo=None, labels=(0, 0, 1, 2), iteration=0, **cfg):
    return SimpleNamespace(
        model=model,
        hooks=[],
        work_dir='.',
        max_iters=max_iters,
        iter=iteration,
        cfg=cfg,
        train_loop=object(),
        train_dataloader=SimpleNamespace(dataset=Dataset(metainfo, labels)),
        message_hub=MessageHub('alone'),
    )


@pytest.mark.parametrize('length', [0, None, float('inf')])
def test_unknown_length_is_named(length):
    with pytest.raises(InputError, match='needs the length of the training.*max_iters'):
        MOREHook().before_train(fake_runner(small(), length))


def test_counts_are_found():
    for metainfo, labels, expected in (
        (dict(classes=('a', 'b'), class_counts=[5, 2]), (0, 1, 0), [2, 1]),  # what is trained on, not what is told
        (dict(classes=('a', 'b')), (0, 1, 0), [2, 1]),
        (None, (0, 1, 1, 2), [1, 2, 1]),
    ):
        model = small()
        MOREHook().before_train(fake_runner(model, metainfo=metainfo, labels=labels))
        assert model.class_counts == expected
    model = small()
    model.set_class_info(ClassInfo(('a', 'b'), [9, 8]))  # by ClassInfoHook
    MOREHook().before_train(fake_runner(model, labels=(0, 1)))
    assert model.class_counts == [9, 8]


def test_counts_that_cannot_be_had_are_named():
    with pytest.raises(InputError, match="class 1 .'b'. has no training images"):
        MOREHook().before_train(fake_runner(small(), metainfo=dict(classes=('a', 'b')), labels=(0, 0)))
    with pytest.raises(InputError, match='tells no labels, one per image'):
        MOREHook().before_train(fake_runner(small(), labels=([0, 1], [1], [])))
    with pytest.raises(InputError, match='class 1 .* has no training images'):
        told = dict(classes=('a', 'b'), class_counts=[3, 0])
        MOREHook().before_train(fake_runner(small(), metainfo=told, labels=None))
    MOREHook().before_train(fake_runner(small(peak=0), labels=([0, 1], [])))  # the control asks for none


def test_activation_checkpointing_is_refused():
    with pytest.raises(InputError, match='activation_checkpointing recomputes'):
        MOREHook().before_train(fake_runner(small(), activation_checkpointing=['backbone']))
    MOREHook().before_train(fake_runner(small(peak=0), activation_checkpointing=['backbone']))


@pytest.mark.parametrize(
    ('options', 'message'), [(dict(interval=0), 'interval is 0'), (dict(protocol='most'), "no shot protocol 'most'")]
)
def test_bad_options_are_named(options, message):
    with pytest.raises(InputError, match=message):
        MOREHook(**options)


def test_mean_discrepancy_by_group():
    """Over the interval, by shot group; a group without a sample keeps its last value."""
    model = small(num_classes=3)
    runner = fake_runner(model, 4, dict(classes=CLASSES), [0] * 200 + [1] * 50 + [2] * 5)
    hook = MOREHook(interval=2)
    hook.before_train(runner)
    labels = [(0, 0, 1), (0, 2, 1), (0, 0, 0), (1, 0, 0)]
    for parameter in model.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    seen = []
    for t, y in enumerate(labels):
        runner.iter = t
        hook.before_train_iter(runner, t)
        samples = [DataSample().set_gt_label(c) for c in y]
        model.train()(torch.randn(3, 3, 8, 8), samples, mode='loss')
        seen.append(model.last[0].sum(-1).tolist())
        hook.after_train_iter(runner, t)
    rows = runner.message_hub.get_info('more_history')
    assert [r[0] for r in rows] == [2, 4]
    means = []
    for chosen in ((0, 1), (2, 3)):
        pairs = [(c, d) for t in chosen for c, d in zip(labels[t], seen[t])]
        means.append([[d for c, d in pairs if c == g] for g in range(3)])
    for row, groups in zip(rows, means):
        for value, values in zip(row[2:], groups):
            assert value == pytest.approx(sum(values) / len(values)) if values else math.isnan(value)
    assert runner.message_hub.get_scalar('train/more_discrepancy_few').data[0].tolist() == pytest.approx([rows[0][4]])
    assert runner.message_hub.get_scalar('train/more_alpha').data[0].tolist() == alphas(4, range(4), 2.0)

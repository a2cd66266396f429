"""ClassInfoHook, FiniteLossHook, CheckpointGuardHook, ShotReportHook: alone, and in a small run."""

import json
import logging
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.evaluator import Evaluator
from mmengine.logging import MessageHub
from mmengine.model import BaseModel
from mmengine.runner.base_loop import BaseLoop
from mmpretrain.models import AverageClsScoreTTA
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, Dataset

from mmlt import InputError
from mmlt.checkpoints import read_checkpoint
from mmlt.engine import CheckpointGuardHook, ClassInfoHook, FiniteLossHook, Runner, ShotReportHook
from mmlt.evaluation import Predictions, ShotAccuracy
from mmlt.registry import HOOKS, MODELS

ABC = {'classes': ('a', 'b', 'c'), 'class_counts': [6, 3, 1]}


# ClassInfoHook


class Asks(nn.Module):
    """A module that wants to know the classes."""

    def __init__(self):
        super().__init__()
        self.told = []

    def set_class_info(self, info):
        self.told.append((info.classes, info.counts and list(info.counts)))


class Loop(BaseLoop):
    def run(self):
        """Nothing."""


class WithMeta(Dataset):
    def __init__(self, metainfo):
        if metainfo is not None:
            self.metainfo = metainfo

    def __len__(self):
        return 1


def runner_with(model, train=None, val=None, test=None, not_built=()):
    """A runner whose loops exist for the given metainfos; MMEngine keeps loops that are not built as dicts."""

    def loop(meta):
        return None if meta is None else Loop(None, DataLoader(WithMeta(meta)))

    loops = {'_train_loop': loop(train), '_val_loop': loop(val), '_test_loop': loop(test)}
    loops |= {f'_{name}_loop': dict(type='TestLoop') for name in not_built}
    return SimpleNamespace(model=model, **loops)


def nested() -> tuple[nn.Module, list[Asks]]:
    """Two askers at different depths, beside modules that do not ask."""
    asks = [Asks(), Asks()]
    model = nn.Sequential(nn.Linear(2, 2), nn.ModuleDict({'head': nn.Sequential(asks[0])}), asks[1])
    model.test_step = model.forward  # which test-time augmentation wants to see
    return model, asks


@pytest.mark.parametrize(
    'wrap', [lambda m: m, nn.DataParallel, lambda m: AverageClsScoreTTA(module=m)], ids=['plain', 'parallel', 'tta']
)
def test_class_info_reaches_every_module_that_asks(wrap):
    model, asks = nested()
    ClassInfoHook().before_run(runner_with(wrap(model), train=ABC))
    assert [a.told for a in asks] == [[(('a', 'b', 'c'), [6, 3, 1])]] * 2


def test_class_info_reaches_a_model_that_asks_itself():
    model = Asks()
    ClassInfoHook().before_run(runner_with(model, train=ABC))
    assert model.told == [(('a', 'b', 'c'), [6, 3, 1])]


@pytest.mark.parametrize('names', [['test'], ['val'], ['val', 'test'], ['train', 'val'], ['train', 'val', 'test']])
def test_class_info_of_whatever_loop_is_there(names):
    model, (asks, _) = nested()
    not_built = [n for n in ('train', 'val', 'test') if n not in names]
    ClassInfoHook().before_run(runner_with(model, **dict.fromkeys(names, ABC), not_built=not_built))
    assert asks.told == [(('a', 'b', 'c'), [6, 3, 1])]


def test_class_counts_are_those_of_the_train_dataset():
    # A foreign dataset tells counts of its own split, or none.
    for counts in ([2, 2, 2], None):
        model, (asks, _) = nested()
        val = {'classes': ABC['classes'], **({'class_counts': counts} if counts else {})}
        ClassInfoHook().before_run(runner_with(model, train=ABC, val=val))
        assert asks.told == [(('a', 'b', 'c'), [6, 3, 1])]


def test_class_info_without_counts():
    model, (asks, _) = nested()
    ClassInfoHook().before_run(runner_with(model, test={'classes': ['a', 'b']}))
    assert asks.told == [(('a', 'b'), None)]


def test_class_info_of_the_validated_classes():
    model, (asks, _) = nested()
    other = {'classes': ('x', 'y'), 'class_counts': [5, 4]}
    ClassInfoHook(split='val').before_run(runner_with(model, train=ABC, val=other))
    assert asks.told == [(('x', 'y'), [5, 4])]


def test_class_info_of_the_validated_classes_when_testing_only():
    model, (asks, _) = nested()
    ClassInfoHook(split='val').before_run(runner_with(model, test=ABC, not_built=['train', 'val']))
    assert asks.told == [(('a', 'b', 'c'), [6, 3, 1])]


def test_no_class_info_needed():
    # Nobody asks: nothing is checked. No loop is built: nothing is known.
    ClassInfoHook().before_run(runner_with(nn.Linear(1, 1), train={}, val=ABC))
    model, (asks, _) = nested()
    ClassInfoHook().before_run(runner_with(model, not_built=['train', 'val', 'test']))
    assert asks.told == []


def test_class_lists_of_different_lengths_are_refused():
    model, (asks, _) = nested()
    with pytest.raises(InputError, match='different class lists: train 3, val 3, test 2 classes'):
        ClassInfoHook().before_run(runner_with(model, train=ABC, val=ABC, test={'classes': ('a', 'b')}))
    assert asks.told == []


@pytest.mark.parametrize('classes', [('b', 'a', 'c'), ('a', 'b', 'd')], ids=['another order', 'another name'])
def test_class_lists_with_different_names_are_refused(classes):
    model, _ = nested()
    with pytest.raises(InputError, match='different class lists'):
        ClassInfoHook().before_run(runner_with(model, train=ABC, val={**ABC, 'classes': classes}))


def test_equal_class_lists_may_be_of_another_type():
    model, (asks, _) = nested()
    ClassInfoHook().before_run(runner_with(model, train=ABC, val={**ABC, 'classes': ['a', 'b', 'c']}))
    assert len(asks.told) == 1


@pytest.mark.parametrize('meta', [{}, {'classes': ()}, {'class_counts': [1]}])
def test_dataset_that_tells_no_classes_is_refused(meta):
    model, _ = nested()
    with pytest.raises(InputError, match=r'tells no class names.*classes=\[\.\.\.\]'):
        ClassInfoHook().before_run(runner_with(model, train=meta))


def test_unknown_split_is_refused():
    with pytest.raises(InputError, match="split is 'test'; choose 'train' or 'val'"):
        ClassInfoHook(split='test')


# FiniteLossHook


@pytest.fixture
def hub():
    yield MessageHub.get_instance('test of basic hooks')
    del MessageHub._instance_dict['test of basic hooks']


@pytest.mark.parametrize(('loss', 'name'), [(float('nan'), 'nan'), (float('inf'), 'inf'), (float('-inf'), '-inf')])
def test_loss_that_is_not_finite_stops_the_training(hub, loss, name):
    runner = SimpleNamespace(iter=41, epoch=2, message_hub=hub)
    outputs = {'loss': torch.tensor(loss), 'acc': torch.tensor(1.0)}
    with pytest.raises(InputError, match=rf'loss became {name} at iteration 42 \(epoch 3\); .*no checkpoint was'):
        FiniteLossHook().after_train_iter(runner, 0, None, outputs)
    hub.update_info('last_ckpt', 'runs/epoch_2.pth')
    with pytest.raises(InputError, match=r'iteration 42 .* last checkpoint is runs/epoch_2\.pth'):
        FiniteLossHook().after_train_iter(runner, 0, None, outputs)


@pytest.mark.parametrize(
    'outputs', [None, {}, {'loss': torch.tensor(3e38)}, {'loss': torch.zeros(())}, {'acc': torch.tensor(float('nan'))}]
)
def test_finite_loss_passes(hub, outputs):
    runner = SimpleNamespace(iter=0, epoch=0, message_hub=hub)
    assert FiniteLossHook().after_train_iter(runner, 0, None, outputs) is None


# CheckpointGuardHook


def small(width=3, head=2) -> nn.Module:
    return nn.Sequential(nn.Linear(2, width), nn.Linear(width, head))


def guard(model, checkpoint, **attributes) -> None:
    runner = SimpleNamespace(**{'hooks': [], 'model': model, '_load_from': 'some.pth', '_resume': False, **attributes})
    CheckpointGuardHook().after_load_checkpoint(runner, checkpoint)


@pytest.mark.parametrize('testing', [False, True])
@pytest.mark.parametrize('resume', [False, True])
def test_guard_lets_a_checkpoint_of_its_own_pass(testing, resume):
    cfg = Config(dict(model=dict(type='A', size=(1, 2))))
    state = small().state_dict()
    meta = {'cfg': cfg.pretty_text}
    for wrapper in (lambda m: m, nn.DataParallel):
        for checkpoint in (
            {'state_dict': state, 'meta': meta},
            {'state_dict': {f'module.{k}': v for k, v in state.items()}, 'meta': meta},
            {'state_dict': {**state, 'more': torch.ones(1)}},
            dict(state),
        ):
            guard(wrapper(small()), checkpoint, testing=testing, _resume=resume, cfg=cfg)


@pytest.mark.parametrize('prefix', ['', 'module.'])
@pytest.mark.parametrize('testing', [False, True])
def test_guard_refuses_another_shape(prefix, testing):
    state = {prefix + k: v for k, v in small(width=5).state_dict().items()}
    match = r"'some.pth' has 0.weight of shape \(5, 2\), but this config's model has \(3, 2\)"
    with pytest.raises(InputError, match=match):
        guard(small(), {'state_dict': state}, testing=testing)
    with pytest.raises(InputError, match=r"has 1.weight of shape \(4, 3\), but this config's model has \(2, 3\)"):
        guard(nn.DataParallel(small()), {'state_dict': small(head=4).state_dict()}, testing=testing)


@pytest.mark.parametrize('testing', [False, True])
def test_guard_refuses_foreign_weights(testing):
    with pytest.raises(
        InputError, match=r"'some.pth' holds no weight of this config's model \(its first is 'visual.proj"
    ):
        guard(small(), {'state_dict': {'visual.proj': torch.ones(1)}}, testing=testing)
    with pytest.raises(InputError, match="its first is 'nothing'"):
        guard(small(), {'state_dict': {}}, testing=testing)


def test_guard_refuses_missing_weights_only_in_testing():
    state = small().state_dict()
    del state['1.weight'], state['1.bias']
    guard(small(), {'state_dict': state}, testing=False)
    guard(small(), {'state_dict': state}, _train_loop=Loop(None, DataLoader([0])))  # of MMEngine's own Runner
    for testing in (dict(testing=True), dict(_train_loop=None), dict(_train_loop=dict(by_epoch=True))):
        with pytest.raises(InputError, match="'some.pth' lacks 2 weights of this config's model, the first is '1.w"):
            guard(small(), {'state_dict': state}, **testing)


def resume_configs():
    old = Config(dict(model=dict(type='A', neck=dict(ratio=0.2, sizes=(1, 2))), lr=0.1))
    new = Config(dict(model=dict(type='A', neck=dict(ratio=0.5, sizes=(1, 2))), lr=0.2))
    return {'state_dict': small().state_dict(), 'meta': {'cfg': old.pretty_text}}, old, new


def test_guard_names_the_first_difference_on_resume():
    checkpoint, _, new = resume_configs()
    match = r"Cannot resume from 'some.pth', .*: model\.neck\.ratio was 0\.2 and is now 0\.5\. "
    with pytest.raises(InputError, match=match):
        guard(small(), checkpoint, _resume=True, cfg=new)


def test_guard_compares_configs_only_on_resume():
    checkpoint, old, new = resume_configs()
    guard(small(), checkpoint, _resume=False, cfg=new)
    guard(small(), checkpoint, _resume=True, testing=True, cfg=new)
    old.log_level = 'DEBUG'  # no part of the recipe
    guard(small(), checkpoint, _resume=True, cfg=old)
    del checkpoint['meta']['cfg']
    guard(small(), checkpoint, _resume=True, cfg=new)
    del checkpoint['meta']
    guard(small(), checkpoint, _resume=True, cfg=new)


def test_guard_without_a_name():
    with pytest.raises(InputError, match='the checkpoint'):
        guard(small(), {'state_dict': {}}, _load_from=None)


# ShotReportHook


@pytest.fixture
def logged():
    """A logger, and the list of what it was told."""
    messages = []
    handler = logging.Handler()
    handler.emit = lambda record: messages.append(record.getMessage())
    logger = logging.Logger('test of basic hooks')
    logger.addHandler(handler)
    return logger, messages


def after_test(tmp_path, logger, num_classes, title=None, filename='configs/ballad/my-run.py', metrics=()):
    """Evaluate 4 samples a class, class c right in (c % 5) of 4, and let the hook report."""
    counts = [int(500 * 0.005 ** (c / (num_classes - 1))) for c in range(num_classes)]
    metric = ShotAccuracy()
    metric.dataset_meta = {'classes': [f'kind {c}' for c in range(num_classes)], 'class_counts': counts}
    labels = np.repeat(np.arange(num_classes), 4)
    right = np.tile(np.arange(4), num_classes) < labels % 5
    for label, prediction in zip(labels, np.where(right, labels, (labels + 1) % num_classes)):
        metric.process(None, [{'gt_label': torch.tensor([label]), 'pred_label': torch.tensor([prediction])}])
    result = metric.evaluate(len(labels))
    runner = SimpleNamespace(
        test_evaluator=Evaluator([*metrics, metric]),
        cfg=SimpleNamespace(filename=filename),
        experiment_name='experiment_2025',
        work_dir=str(tmp_path),
        logger=logger,
    )
    ShotReportHook(title).after_test_epoch(runner, result)
    return metric.report


@pytest.mark.parametrize('num_classes', [3, 200])
def test_report_is_written_and_printed(tmp_path, logged, capsys, num_classes):
    logger, messages = logged
    report = after_test(tmp_path, logger, num_classes)
    assert sorted(p.name for p in tmp_path.iterdir()) == ['predictions.npz', 'shot_report.json', 'shot_report.png']

    written = json.loads((tmp_path / 'shot_report.json').read_text())
    assert written == report
    assert [c['accuracy'] for c in written['per_class']] == [25.0 * (c % 5) for c in range(num_classes)]
    assert written['num_samples'] == 4 * num_classes
    assert sum(written['classes_per_shot'].values()) == num_classes
    kept = Predictions.load(tmp_path / 'predictions.npz')
    assert np.array_equal(kept.label, np.repeat(np.arange(num_classes), 4))
    assert [100 * np.mean(kept.prediction[kept.label == c] == c) for c in range(num_classes)] == [
        c['accuracy'] for c in report['per_class']
    ]

    with Image.open(tmp_path / 'shot_report.png') as image:
        assert image.format == 'PNG'
        pixels = np.asarray(image.convert('RGB'))
    assert pixels.shape[0] > 400 and pixels.shape[1] > 800
    assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 20
    assert (pixels != 255).any(-1).mean() > 0.05

    out = capsys.readouterr().out
    assert 'my-run' in out and 'configs' not in out
    assert f'{4 * num_classes} test images, protocol standard' in out
    for shot in ('many', 'medium', 'few'):
        assert f'{shot} ({report["classes_per_shot"][shot]})' in out
        assert f' {report["metrics"][shot]:.1f} ' in out
    (message,) = messages
    assert f'{tmp_path}/shot_report.json' in message and f'{tmp_path}/shot_report.png' in message


def test_report_title(tmp_path, logged, capsys):
    after_test(tmp_path, logged[0], 3, title='My title')
    out = capsys.readouterr().out
    assert 'My title' in out and 'my-run' not in out
    after_test(tmp_path, logged[0], 3, filename=None)
    assert 'experiment_2025' in capsys.readouterr().out


def test_no_report_without_the_metric(tmp_path, logged, capsys):
    runner = SimpleNamespace(test_evaluator=Evaluator([]), work_dir=str(tmp_path), logger=logged[0])
    ShotReportHook().after_test_epoch(runner, {})
    runner.test_evaluator = Evaluator([ShotAccuracy()])  # nothing was evaluated yet
    ShotReportHook().after_test_epoch(runner, {})
    assert list(tmp_path.iterdir()) == [] and capsys.readouterr().out == ''


def test_report_among_other_metrics(tmp_path, logged, capsys):
    other = ShotAccuracy(class_counts=[1])
    other.__class__ = type('Other', (ShotAccuracy.__mro__[1],), {'process': None, 'compute_metrics': None})
    report = after_test(tmp_path, logged[0], 3, metrics=[other])
    assert json.loads((tmp_path / 'shot_report.json').read_text()) == report


@pytest.mark.parametrize('hook', [ClassInfoHook, FiniteLossHook, CheckpointGuardHook, ShotReportHook])
def test_registered(hook):
    assert type(HOOKS.build(dict(type=f'mmlt.{hook.__name__}'))) is hook


# In a run


@MODELS.register_module(name='ModelOfBasicHooks', force=True)
class Model(BaseModel):
    """One weight; its loss is infinite from the given iteration on."""

    def __init__(self, width=1, breaks_at=None):
        super().__init__()
        self.linear = nn.Linear(1, width)
        self.breaks_at, self.seen, self.told = breaks_at, 0, None

    def set_class_info(self, info):
        self.told = (info.classes, info.counts and list(info.counts))

    def forward(self, x, mode='tensor'):
        self.seen += 1
        factor = float('inf') if self.seen == self.breaks_at else 1.0
        return {'loss': (self.linear(x).square().mean() + 1) * factor}


class Numbers(Dataset):
    metainfo = ABC

    def __len__(self):
        return 4

    def __getitem__(self, i):
        return {'x': torch.tensor([i / 4])}


def train(tmp_path, **kwargs) -> Runner:
    """Train one epoch of 4 iterations, or what ``kwargs`` say, with a checkpoint after every iteration."""
    cfg = dict(
        model=dict(type='mmlt.ModelOfBasicHooks'),
        work_dir=str(tmp_path),
        train_dataloader=dict(
            dataset=Numbers(),
            sampler=dict(type='DefaultSampler', shuffle=False),
            batch_size=1,
            collate_fn=lambda batch: {'x': torch.stack([b['x'] for b in batch])},
        ),
        train_cfg=dict(by_epoch=True, max_epochs=1),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.01)),
        default_hooks=dict(checkpoint=dict(type='CheckpointHook', interval=1, by_epoch=False)),
        custom_hooks=[dict(type='mmlt.ClassInfoHook'), dict(type='mmlt.FiniteLossHook')],
        log_level='ERROR',
        experiment_name=f'basic_hooks_{tmp_path.name}_{len(MessageHub._instance_dict)}',
    )
    cfg.update(kwargs)
    runner = Runner(**cfg, cfg=Config(dict(model=cfg['model'])))
    runner.train()
    return runner


def test_run_stops_before_a_good_checkpoint_is_overwritten(tmp_path):
    with pytest.raises(InputError, match=r'loss became inf at iteration 3 \(epoch 1\); .*checkpoint is .*/iter_2\.pth'):
        train(tmp_path, model=dict(type='mmlt.ModelOfBasicHooks', breaks_at=3))
    assert sorted(p.name for p in tmp_path.glob('*.pth')) == ['iter_1.pth', 'iter_2.pth']
    weights = read_checkpoint(tmp_path / 'iter_2.pth')['state_dict']
    assert all(w.isfinite().all() for w in weights.values())


def test_run_tells_the_classes_and_resumes_only_the_same_model(tmp_path):
    runner = train(tmp_path, default_hooks=dict(checkpoint=dict(type='CheckpointHook', interval=1)))
    assert runner.model.told == (('a', 'b', 'c'), [6, 3, 1])
    twice = dict(by_epoch=True, max_epochs=2)
    resumed = train(tmp_path, resume=True, train_cfg=twice)
    assert resumed.iter == 8 and resumed.model.seen == 4  # the first epoch was not repeated

    match = 'Cannot resume .*: model.width was not set and is now 1'
    with pytest.raises(InputError, match=match):
        train(tmp_path, resume=True, model=dict(type='mmlt.ModelOfBasicHooks', width=1), train_cfg=twice)
    match = r"epoch_1.pth' has linear.weight of shape \(1, 1\), but this config's model has \(2, 1\)"
    with pytest.raises(InputError, match=match):
        train(
            tmp_path / 'other',
            load_from=str(tmp_path / 'epoch_1.pth'),
            model=dict(type='mmlt.ModelOfBasicHooks', width=2),
        )

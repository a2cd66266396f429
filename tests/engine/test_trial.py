"""What is wrong with a later stage is told before the first one is trained."""

import gc
import weakref

import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.logging import MessageHub, MMLogger
from mmengine.registry import HOOKS, DefaultScope
from mmengine.visualization import Visualizer

from mmlt import InputError
from mmlt.checkpoints import read_checkpoint
from mmlt.engine import Runner
from mmlt.engine.stages import RunRecord, plan
from mmlt.engine.trial import try_stages
from mmlt.models.open_clip_towers import OpenCLIPTowers


class _Trains(Exception):
    pass


@pytest.fixture
def no_training(monkeypatch):
    """A training that begins ends in an exception."""

    def train(self):
        raise _Trains(self.work_dir)

    monkeypatch.setattr(Runner, 'train', train)


def planned(config, **options):
    cfg = Config.fromfile(config)
    cfg.work_dir = 'w'
    cfg.merge_from_dict(options)
    return plan(cfg)


def weights(path):
    return read_checkpoint(path)['state_dict']


# Not noticed when names are compared: values, shapes, files, and what is only known when it is built or run.
MISTAKES = {
    'width': (['model.neck.in_channels=32'], "'b', before anything is trained: .*width 32, but they are 64 wide"),
    'another tower': (['model.backbone.model=mmlt-tiny-rn'], 'built for features of width 64, but they are 128'),
    'a tower that the checkpoint does not fit': (
        ['model.backbone.image_size=64', 'train_dataloader.dataset.pipeline.1.scale=(64,64)']
        + ['val_dataloader.dataset.pipeline.1.scale=(64,64)', 'test_dataloader.dataset.pipeline.1.scale=(64,64)'],
        r"'w/phase_a' has backbone.visual.positional_embedding of shape",
    ),
    'part that is not there': (['stages.phase_a.load_from=tower'], "load_from='tower', but 'w/phase_a' holds no"),
    'unknown argument': (['model.head.nothing=1'], "model.head.nothing: TextClsHead has no argument 'nothing'"),
    'unknown type': (['model.neck.type=Nothing'], "model.neck.type: there is no model 'Nothing'"),
    'optimizer': (['optim_wrapper.optimizer.wd=0.1'], "wd: SGD has no argument 'wd'.* weight_decay"),
    'optimizer, a value': (['optim_wrapper.optimizer.lr=-1'], 'Invalid learning rate: -1'),
    'schedule': (['param_scheduler.0.T_min=3'], "param_scheduler.0.T_min: .* has no argument 'T_min'"),
    'sampler': (['train_dataloader.sampler.rate=3'], "sampler.rate: ClassBalancedSampler has no argument 'rate'"),
    'train list': (['train_dataloader.dataset.ann_file=no.txt'], r"no\.txt' does not exist"),
    'test list': (['test_dataloader.dataset.ann_file=no.txt'], r"no\.txt' does not exist"),
    'transform': (['train_dataloader.dataset.pipeline.1.scle=3'], 'pipeline.1.scle: Resize has no argument'),
    'size of pictures': (['train_dataloader.dataset.pipeline.1.scale=(16,16)'], 'it fails in a try of one step'),
    'hook': (['default_hooks.feature_cache.views=-1'], 'views is -1'),
    'hook that is built by another': (["custom_hooks=[dict(type='EMAHook', beta=1)]"], "has no argument 'beta'"),
    'cache of what is not frozen': (['model.backbone.frozen=False'], 'need a frozen OpenCLIPVision'),
    'metric': (['test_evaluator.0.shots=3'], "test_evaluator.0.shots: ShotAccuracy has no argument 'shots'"),
    'weight file': (['model.backbone.pretrained=/no/such.pt'], 'pretrained=/no/such.pt does not exist'),
    'start': (['load_from=/no/start.pth'], 'load_from=/no/start.pth does not exist'),
    'file of a stage': (
        ['model.backbone.pretrained={stage:phase_a}/open_clip.safetensors'],
        "the stage 'phase_a' will leave no such file: no hook of it writes a file",
    ),
    'an earlier stage': (
        ['stages.phase_a.options.param_scheduler.0.T_mx=3'],
        'stages.phase_a.options.param_scheduler.0.T_mx: .* the nearest is .T_max',
    ),
}


@pytest.mark.parametrize('options, sentence', MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_in_the_last_stage(two_stages, train_tool, no_training, options, sentence):
    with pytest.raises(SystemExit, match=sentence) as stop:
        train_tool.main(['b.py', '--work-dir', 'w', '--cfg-options', *options])
    assert str(stop.value).startswith('mmlt: ') and '\n' not in str(stop.value)
    assert RunRecord('w/phase_a').read() is None


def test_without_a_mistake_the_first_stage_is_trained(two_stages, train_tool, no_training):
    with pytest.raises(_Trains, match='phase_a'):
        train_tool.main(['b.py', '--work-dir', 'w'])
    with pytest.raises(_Trains, match='phase_a'):  # it can be left out
        train_tool.main(['b.py', '--work-dir', 'w', '--no-trial', '--cfg-options', 'model.neck.in_channels=32'])


def test_a_single_training_needs_no_try(two_stages, train_tool, no_training, monkeypatch):
    monkeypatch.setattr('mmlt.engine.trial._runner', None)
    with pytest.raises(_Trains):
        train_tool.main(['a.py'])
    # what its test needs is there before it is trained
    for option in ('test_evaluator.0.shots=3', 'test_dataloader.dataset.ann_file=no.txt'):
        with pytest.raises(SystemExit, match=r"has no argument 'shots'|no\.txt' does not exist"):
            train_tool.main(['a.py', '--cfg-options', option])
    with pytest.raises(_Trains):
        train_tool.main(['a.py', '--no-test', '--cfg-options', 'test_dataloader.dataset.ann_file=no.txt'])


def test_the_training_is_the_same_with_and_without(two_stages, train_tool):
    train_tool.main(['b.py', '--work-dir', 'tried', '--no-test'])
    train_tool.main(['b.py', '--work-dir', 'not', '--no-test', '--no-trial'])
    for path in ('phase_a/epoch_3.pth', 'epoch_3.pth'):
        a, b = weights(f'tried/{path}'), weights(f'not/{path}')
        assert all(torch.equal(a[k], b[k]) for k in a)


def test_no_weights_are_read_and_one_stage_is_in_memory_at_a_time(two_stages, monkeypatch):
    def load(self):
        raise AssertionError('weights are read')

    models = []
    original = Runner.build_model

    def build(self, model):
        gc.collect()
        assert not any(ref() is not None for ref in models)
        built = original(self, model)
        models.append(weakref.ref(built))
        return built

    monkeypatch.setattr(OpenCLIPTowers, 'load', load)
    monkeypatch.setattr(Runner, 'build_model', build)
    try_stages(planned('b.py'))
    assert len(models) == 2


@HOOKS.register_module(name='TestForeignHook', force=True)
class ForeignHook(Hook):
    """It may do anything, so it is built and not called."""

    built = 0

    def __init__(self):
        ForeignHook.built += 1

    def before_run(self, runner):
        raise AssertionError('called')

    before_train = before_run


def test_nothing_is_left(two_stages):
    managers = (MMLogger, MessageHub, DefaultScope, Visualizer)
    before = [list(m._instance_dict) for m in managers]
    files = sorted(two_stages.rglob('*'))
    try_stages(planned('b.py', custom_hooks=[dict(type='TestForeignHook')]))
    assert ForeignHook.built == 1
    assert [list(m._instance_dict) for m in managers] == before
    assert sorted(two_stages.rglob('*')) == files


def test_a_stage_that_is_only_tested(two_stages, train_tool, no_training):
    (two_stages / 'tau.py').write_text(
        """
_base_ = ['./a.py']
stages = dict(ce=dict(config='ce.py', load_from=True))
model = dict(backbone=dict(pretrained=None),
             head=dict(_delete_=True, type='mmlt.TauNormClsHead', num_classes=3, in_channels=64))
train_cfg = train_dataloader = optim_wrapper = param_scheduler = None
val_cfg = val_dataloader = val_evaluator = None
"""
    )
    (two_stages / 'ce.py').write_text(
        "_base_ = ['./a.py']\n"
        "model = dict(head=dict(_delete_=True, type='LinearClsHead', num_classes=3, in_channels=64))\n"
    )
    with pytest.raises(_Trains, match='ce'):
        train_tool.main(['tau.py', '--work-dir', 'w'])
    # weights that the stage will not leave
    with pytest.raises(SystemExit, match=r"'w/ce' lacks 2 weights .* 'neck\.linear\.weight'"):
        neck = "model.neck=dict(type='mmlt.BalancedLinearAdapter', in_channels=64)"
        train_tool.main(['tau.py', '--work-dir', 'w', '--cfg-options', neck])


def test_stages_that_cannot_be_tried_are_named(two_stages, monkeypatch):
    monkeypatch.setattr('mmlt.engine.trial._batch', lambda loader: 1 / 0)
    with pytest.raises(InputError, match=r"Stage 'b', .*\(ZeroDivisionError in <lambda>: .*--no-trial"):
        try_stages(planned('b.py'))

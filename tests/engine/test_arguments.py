"""Names of arguments and components that nothing knows."""

import functools
from pathlib import Path
from urllib.error import URLError

import pytest
import torch
from mmengine.config import Config
from mmengine.model import BaseModule
from mmengine.registry import PARAM_SCHEDULERS, DefaultScope
from mmpretrain.registry import DATASETS, MODELS
from torch import nn

from mmlt import InputError
from mmlt.engine.arguments import check_arguments
from mmlt.engine.build_errors import explain, explained
from mmlt.engine.names import accepted_arguments, check_argument_names, nearest_type, one_slip
from mmlt.engine.requirements import data_problems


class Base(BaseModule):
    def __init__(self, width, init_cfg=None):
        super().__init__(init_cfg)


class Passes(Base):
    def __init__(self, depth, **kwargs):
        super().__init__(**kwargs)


class TakesOut(Base):
    def __init__(self, **kwargs):
        self.own = kwargs.pop('own', 1)
        self.other = kwargs.get('other')
        super().__init__(**kwargs)


class HandsOn(Base):
    def __init__(self, depth, **kwargs):
        super().__init__(3)
        self.inner = Base(**kwargs)


class Bare(nn.Module):
    def __init__(self, size, **kwargs):
        super().__init__(**kwargs)


class Nothing(Base):
    pass


@pytest.mark.parametrize(
    'target, names',
    [
        (Base, {'width', 'init_cfg'}),
        (Passes, {'depth', 'width', 'init_cfg'}),
        (TakesOut, {'own', 'other', 'width', 'init_cfg'}),
        (HandsOn, None),
        (Bare, {'size'}),
        (Nothing, {'width', 'init_cfg'}),
        (functools.partial(Base, width=3), {'init_cfg'}),
        (functools.partial(HandsOn, depth=3), None),
        (functools.partial(lambda a, b: 0, a=1), {'b'}),
        (lambda a, *, b=1: 0, {'a', 'b'}),
        (dict, None),
    ],
)
def test_what_can_be_called_with(target, names):
    assert accepted_arguments(target) == names


def test_known_classes():
    assert {'lr', 'weight_decay', 'fused'} <= accepted_arguments(torch.optim.AdamW)
    assert 'lrr' not in accepted_arguments(torch.optim.AdamW)
    assert {'fusion', 'num_classes', 'loss', 'cal_acc'} <= accepted_arguments(MODELS.get('mmlt.LGRHead'))


@pytest.mark.parametrize(
    'a, b, found',
    [('fusoin', 'fusion', True), ('lrr', 'lr', True), ('lr', 'lrs', True), ('sise', 'size', True), ('a', 'abc', False)]
    + [('fusion', 'fusion', True), ('depth', 'width', False), ('abcd', 'abdc', True), ('ab', 'cd', False)],
)
def test_one_slip(a, b, found):
    assert one_slip(a, b) == one_slip(b, a) == found


def test_names_are_compared():
    check_argument_names(['a'], {'a', 'b'}, 'x', 'X')
    with pytest.raises(
        InputError, match=r"^x\.lenght: X has no argument 'lenght', the nearest is 'length'; it takes a"
    ):
        check_argument_names(['a', 'lenght'], {'a', 'length'}, 'x', 'X')
    check_argument_names(['quite_another'], {'length'}, 'x', 'X', slips=True)
    check_argument_names(['magnitude_key', 'magnitude'], {'magnitude'}, 'x', 'X', slips=True)  # given beside it
    assert nearest_type('mmlt.ShotAcuracy', {'mmlt.ShotAccuracy', 'Accuracy'}) == 'mmlt.ShotAccuracy'
    assert nearest_type('zzz', {'Accuracy'}) is None


@pytest.mark.parametrize(
    'option, sentence',
    [
        ('model.backbone.froze=True', "model.backbone.froze: OpenCLIPVision has no argument 'froze', .* 'frozen'"),
        ('model.nek=1', "model.nek: ImageClassifier has no argument 'nek', the nearest is 'neck'"),
        ('model.head.type=mmlt.TextClsHed', "model.head.type: there is no 'mmlt.TextClsHed', .* 'mmlt.TextClsHead'"),
        ('optim_wrapper.optimzer.lr=0.3', "optim_wrapper.optimzer: OptimWrapper .* 'optimizer'"),
        ('optim_wrapper.optimizer.lrr=0.3', "optimizer.lrr: SGD has no argument 'lrr', the nearest is 'lr'"),
        ('optim_wrapper.type=AmpOptimWraper', "there is no 'AmpOptimWraper', the nearest is 'AmpOptimWrapper'"),
        ('optim_wrapper.clip_grad.max_nrom=1', 'clip_grad.max_nrom: clip_grad_norm_ has no .* .max_norm.'),
        ('optim_wrapper.constructor=mmlt.RatesOptimWrapperConstructr', "the nearest is 'mmlt.RatesOptimWrapperCons"),
        ('optim_wrapper.paramwise_cfg.norm_deacy_mult=0', "norm_deacy_mult: Default.* 'norm_decay_mult'"),
        ('optim_wrapper.paramwise_cfg.custom_keys.head.lr_mutl=0', "custom_keys.head.lr_mutl: .* 'lr_mult'"),
        ('train_cfg.max_epoch=3', "train_cfg.max_epoch: EpochBasedTrainLoop has no .* 'max_epochs'"),
        ('test_cfg.fp61=True', "test_cfg.fp61: TestLoop .* 'fp16'"),
        ('train_dataloader.batch_sise=3', "train_dataloader.batch_sise: A dataloader .* 'batch_size'"),
        ('train_dataloader.dataset.ann_fil=x', "dataset.ann_fil: LongTailedDataset .* 'ann_file'"),
        ('train_dataloader.dataset.pipeline.1.scalee=3', "pipeline.1.scalee: Resize .* 'scale'"),
        ('train_dataloader.dataset.pipeline.1.type=Resise', "pipeline.1.type: there is no 'Resise', .* 'Resize'"),
        ('val_dataloader.sampler.shufle=3', "sampler.shufle: DefaultSampler .* 'shuffle'"),
        ('val_evaluator.0.protcol=x', "val_evaluator.0.protcol: ShotAccuracy .* 'protocol'"),
        ('param_scheduler.0.by_epohc=1', "param_scheduler.0.by_epohc: CosineAnnealingLR .* 'by_epoch'"),
        ('default_hooks.checkpoint.intervall=1', "checkpoint.intervall: CheckpointHook .* 'interval'"),
        ('randomness.sed=1', "randomness.sed: .* 'seed'"),
        ('auto_scale_lr.enabel=True', "auto_scale_lr.enabel: .* 'enable'"),
        ('env_cfg.cudnn_benchmrk=True', "env_cfg.cudnn_benchmrk: .* 'cudnn_benchmark'"),
        ('trian_cfg.max_epochs=3', "^trian_cfg: nothing reads a setting of this name; the nearest is 'train_cfg'"),
        ('custom_hook=3', "^custom_hook: nothing reads .* 'custom_hooks'"),
    ],
)
def test_a_slip_in_any_section(two_stages, option, sentence):
    cfg = Config.fromfile('a.py')
    check_arguments(cfg)
    key, value = option.split('=')
    cfg.merge_from_dict({key: value})
    with pytest.raises(InputError, match=sentence):
        check_arguments(cfg)
    with pytest.raises(InputError, match='stages.a.options.'):
        check_arguments(cfg, 'stages.a.options.')


def test_sections_that_are_not_asked_for(two_stages):
    cfg = Config.fromfile('a.py')
    cfg.train_cfg.max_epoch = 3
    check_arguments(cfg, keys=('model', 'test_cfg'))


def test_what_others_may_take_out_is_let_through(two_stages):
    cfg = Config.fromfile('a.py')
    cfg.model.head.quite_another = 1  # building it decides
    cfg.train_dataloader.dataset.pipeline[1].magnitude_key = 'x'
    cfg.optim_wrapper.paramwise_cfg = dict(custom_keys=dict(head=dict(lars_exclude=True)))
    cfg.model.backbone.norm_cfg = dict(type='SyncBN', requires_grad=True)
    cfg.custom_imports.more = 1
    cfg.test_cfg = [2]  # no dict, which building it says
    check_arguments(cfg)


@pytest.mark.parametrize('path', sorted(Path(__file__).parents[2].glob('configs/*/*.py')), ids=lambda p: p.stem)
def test_every_config_passes(path):
    check_arguments(Config.fromfile(path))


LGR = dict(type='mmlt.LGRHead', num_classes=3, in_channels=4)


@pytest.mark.parametrize(
    'model, sentence',
    [
        (dict(LGR, temperature=1.0), r"^model\.temperature: LGRHead has no argument 'temperature'; it takes anchors"),
        (dict(type='LGRHed'), r"^model\.type: there is no model 'LGRHed', the nearest is 'mmlt\.LGRHead'"),
        (dict(type='mmlt.LGRHead', num_classes=3), '^model: LGRHead needs .in_channels.'),
        (
            dict(type='ImageClassifier', backbone=dict(type='ResNet', depth=18), head=dict(scale=3)),
            r'^model\.head has no type, it is dict\(scale=3\)',
        ),
    ],
)
def test_what_building_says(model, sentence):
    cfg = Config(dict(model=model))
    with DefaultScope.overwrite_default_scope('mmpretrain'), pytest.raises(InputError, match=sentence), explained(cfg):
        MODELS.build(cfg.model)


def test_errors_that_no_config_made_stay_as_they_are():
    def broken(**kwargs):
        raise TypeError("f() got an unexpected keyword argument 'other'")

    with pytest.raises(TypeError) as caught:
        MODELS.build(dict(type=broken, own=1))
    assert explain(caught.value, Config(dict(model=dict(own=1)))) is None
    with pytest.raises(KeyError, match='mine'), explained():
        raise KeyError('mine')


@pytest.mark.parametrize('by_iter, numbers', [(False, 'begin=1, end=1'), (True, 'begin=9, end=9')])
def test_a_training_that_ends_within_the_warm_up(by_iter, numbers):
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], 0.1)
    schedule = dict(type='CosineAnnealingLR', optimizer=optimizer, begin=1, end=1, T_max=1, by_epoch=True)
    extra = dict(convert_to_iter_based=True, epoch_length=9) if by_iter else {}
    said = rf'^param_scheduler: CosineAnnealingLR would begin when the training is over \({numbers}\): train for more'
    with pytest.raises(InputError, match=said), explained():
        PARAM_SCHEDULERS.build({**schedule, **extra})
    with pytest.raises(ValueError, match='^another$'), explained():
        raise ValueError('another')


@pytest.mark.parametrize('error', [URLError('no route'), ConnectionResetError('gone'), TimeoutError('timed out')])
def test_downloads_without_a_network(tmp_path, monkeypatch, error):
    def refused(*args, **kwargs):
        raise error

    monkeypatch.setattr('urllib.request.urlopen', refused)
    monkeypatch.setattr('torch.hub.urlopen', refused)
    monkeypatch.setenv('TORCH_HOME', str(tmp_path / 'cache'))
    data = dict(type='mmlt.CIFAR10LT', data_root=str(tmp_path / 'cifar'), split='train', pipeline=[])
    said = rf'^https://\S*/cifar-10-python.tar.gz could not be fetched for CIFAR10LT .*{tmp_path}/cifar/cifar-10'
    with pytest.raises(InputError, match=said) as caught, explained():
        DATASETS.build(data)
    assert str(caught.value).count('\n') == 0
    backbone = dict(type='ResNet_CIFAR', depth=18, init_cfg=dict(type='Pretrained', checkpoint='https://a.b/w.pth'))
    with pytest.raises(
        InputError, match=r"'https://a.b/w.pth' cannot be read: .*\. Without a network, .* give its path"
    ):
        MODELS.build(backbone).init_weights()
    cfg = Config(dict(default_scope='mmpretrain', train_dataloader=dict(dataset=data), test_dataloader=None))
    assert 'could not be fetched for CIFAR10LT' in data_problems(cfg, None, True)[0]
    with pytest.raises(type(error)), explained():
        raise type(error)('of something else')

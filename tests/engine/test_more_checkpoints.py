"""Weights that are not those of a model are refused, whoever loads them; nothing diverged is given away."""

import re

import pytest
import torch
from mmengine.config import Config
from mmengine.model import BaseModule
from mmengine.runner import Runner as MMEngineRunner
from mmengine.runner import load_checkpoint, load_state_dict
from mmpretrain.registry import MODELS
from mmpretrain.structures import DataSample
from torch import nn
from torch.utils.data import Dataset

from mmlt.checkpoints import read_checkpoint
from mmlt.checkpoints.publish import publish_checkpoint
from mmlt.checkpoints.split_state import merge_state_dict
from mmlt.checkpoints.weights import fit_state, load_weights
from mmlt.engine import Runner
from mmlt.errors import InputError
from mmlt.registry import DATASETS

PLAIN = dict(
    type='ImageClassifier',
    backbone=dict(type='mmlt.CIFARResNet', depth=8, base_channels=4),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(type='LinearClsHead', num_classes=3, in_channels=16),
)
FC = 'head.fc.parametrizations.weight.'


def more(**options):
    return dict(type='mmlt.MORE', classifier=PLAIN, **options)


def build(cfg):
    torch.manual_seed(0)
    model = MODELS.build(cfg)
    for parameter in model.parameters():
        parameter.data += 0.1
    return model


@DATASETS.register_module()
class TwelveNoises(Dataset):
    metainfo = dict(classes=('a', 'b', 'c'))

    def __len__(self):
        return 12

    def get_gt_labels(self):
        return [i % 3 for i in range(12)]

    def __getitem__(self, i):
        image = torch.randn(3, 8, 8, generator=torch.Generator().manual_seed(i))
        return dict(inputs=image, data_samples=DataSample().set_gt_label(i % 3))


def config(folder, model, hooks=(), **changes):
    loader = dict(batch_size=4, num_workers=0, dataset=dict(type='mmlt.TwelveNoises'))
    return Config(
        dict(
            default_scope='mmpretrain',
            work_dir=str(folder),
            model=model,
            train_dataloader=dict(loader, sampler=dict(type='DefaultSampler', shuffle=True)),
            train_cfg=dict(by_epoch=True, max_epochs=1),
            optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.001)),
            test_dataloader=dict(loader, sampler=dict(type='DefaultSampler', shuffle=False)),
            test_cfg=dict(),
            test_evaluator=dict(type='Accuracy'),
            custom_hooks=list(hooks),
            log_level='ERROR',
            **changes,
        )
    )


@pytest.fixture
def split_file(tmp_path):
    torch.save(dict(state_dict=build(more()).state_dict(), meta={}), path := str(tmp_path / 'split.pth'))
    return path


# One model, whoever loads


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(rank=2), r'conv1\.parametrizations\.weight\.0\.A of shape \(\d+, 27\).*give the config \(layers, excl'),
        (dict(rank=0.9), 'asks for'),
        (dict(layers='backbone.*'), f"no low-rank part for '{re.escape(FC)}original'.*mmlt publish"),
        (dict(exclude='*conv1.weight'), r"no low-rank part for 'backbone\.conv1"),
    ],
)
@pytest.mark.parametrize(
    'load',
    [
        lambda model, path: model.load_state_dict(read_checkpoint(path)['state_dict'], strict=False),
        lambda model, path: load_state_dict(model, read_checkpoint(path)['state_dict']),
        lambda model, path: load_checkpoint(model, path, logger='silent'),
        load_weights,
    ],
    ids=['torch', 'mmengine', 'mmengine, a file', 'ours'],
)
def test_other_splits_are_refused_by_the_model(split_file, options, message, load):
    with pytest.raises(InputError, match=message):
        load(build(more(**options)), split_file)


def test_a_damaged_split_is_refused_and_a_part_of_a_whole_is_not(split_file):
    state = read_checkpoint(split_file)['state_dict']
    damaged = {k: v for k, v in state.items() if k != f'{FC}0.B'}
    with pytest.raises(InputError, match=f"has '{FC}original' but not '{FC}0.B': it is damaged"):
        build(more()).load_state_dict(damaged, strict=False)
    tower = {k.removeprefix('backbone.'): v for k, v in state.items() if k.startswith('backbone.')}
    (model := build(more())).backbone.load_state_dict(tower)  # a part of it, into that part
    name = 'conv1.parametrizations.weight.0.B'
    assert torch.equal(model.backbone.state_dict()[name], tower[name])


def test_merged_model_refuses_a_split_checkpoint(split_file):
    merged = build(more()).merge()
    with pytest.raises(InputError, match='not merged'):
        load_checkpoint(merged, split_file, logger='silent')
    merged.load_state_dict(merge_state_dict(read_checkpoint(split_file)['state_dict']))


@pytest.mark.parametrize('kind', ['plain', 'NaN', 'a part'])
def test_our_loading_takes_all_or_nothing(split_file, tmp_path, kind):
    state = read_checkpoint(split_file)['state_dict']
    if kind == 'plain':
        with pytest.raises(InputError, match="split.pth' is a checkpoint of MORE that is not merged"):
            load_weights(build(PLAIN), split_file)
    elif kind == 'NaN':
        state['backbone.bn1.running_var'][1] = float('inf')
        torch.save(dict(state_dict=state), path := tmp_path / 'nan.pth')
        with pytest.raises(InputError, match=r"NaN or infinite numbers in 'backbone\.bn1\.running_var'.*earlier"):
            load_weights(build(more()), path)
    else:
        part = {k: v for k, v in state.items() if not k.startswith('head.')}
        torch.save(dict(state_dict=part), path := tmp_path / 'part.pth')
        with pytest.raises(InputError, match="lacks 4 weights .*the first is 'head.fc."):
            load_weights(build(more()), path)
        fit_state(build(more()), part).require('start', 'x')


# Under MMEngine's runner, as its tools run


@pytest.mark.parametrize(
    ('model', 'hooks', 'message'),
    [
        (more(rank=2), ['mmlt.MOREHook'], r'0\.A of shape'),
        (more(rank=2), [], r'0\.A of shape'),
        (more(layers='head.*'), ['mmlt.MOREHook'], 'no low-rank part'),
        (PLAIN, ['mmlt.CheckpointGuardHook'], 'not merged'),
    ],
    ids=['rank', 'rank, no hook', 'layers', 'plain'],
)
def test_stock_runner_tests_no_random_weights(split_file, tmp_path, model, hooks, message):
    cfg = config(tmp_path / 'out', model, [dict(type=h) for h in hooks], load_from=split_file)
    with pytest.raises(InputError, match=message):
        MMEngineRunner.from_cfg(cfg).test()
    with pytest.raises(InputError, match=message):
        MMEngineRunner.from_cfg(cfg).train()


@pytest.mark.parametrize('runner', [MMEngineRunner, Runner])
def test_checkpoint_of_another_model_under_more(tmp_path, runner):
    torch.save(dict(state_dict=nn.Linear(2, 2).state_dict()), path := str(tmp_path / 'other.pth'))
    cfg = config(tmp_path / 'out', more(), [dict(type='mmlt.MOREHook')], load_from=path)
    with pytest.raises(InputError, match="holds no weight of this config's model"):
        runner.from_cfg(cfg).test()
    part = {k: v for k, v in build(PLAIN).state_dict().items() if k.startswith('backbone.')}
    torch.save(dict(state_dict=part), path)
    with pytest.raises(InputError, match='lacks 4 weights'):
        runner.from_cfg(cfg).test()
    runner.from_cfg(cfg).train()  # as a start it is fine


# Files to start from, by init_cfg


def start(tmp_path, checkpoint, part='backbone', model=PLAIN, **init):
    cfg = {**model, part: {**model[part], 'init_cfg': dict(type='Pretrained', checkpoint=checkpoint, **init)}}
    Runner.from_cfg(config(tmp_path / 'out', cfg)).train()


def test_files_of_init_cfg(split_file, tmp_path):
    plain = tmp_path / 'plain.pth'
    torch.save(dict(state_dict=build(PLAIN).state_dict()), plain)
    start(tmp_path, str(plain), prefix='backbone')
    with pytest.raises(InputError, match=r"split.pth \(backbone.\*\)' is a checkpoint of MORE that is not merged"):
        start(tmp_path, split_file, prefix='backbone')
    with pytest.raises(InputError, match=r"holds no weight of backbone, which is .*'backbone\.conv1\.weight'.*prefix"):
        start(tmp_path, str(plain))
    wide = {**PLAIN, 'backbone': dict(PLAIN['backbone'], base_channels=8)}
    wide['head'] = dict(PLAIN['head'], in_channels=32)
    with pytest.raises(InputError, match='no weight of backbone'):
        start(tmp_path, str(plain), prefix='backbone', model=wide)


def test_init_cfg_of_a_module_without_weights_is_left_alone(tmp_path):
    @MODELS.register_module(name='NoWeights', force=True)
    class NoWeights(BaseModule):
        def forward(self, x):
            return tuple(f.mean((2, 3)) for f in x)

    torch.save(dict(state_dict=build(PLAIN).state_dict()), path := str(tmp_path / 'plain.pth'))
    start(tmp_path, path, 'neck', {**PLAIN, 'neck': dict(type='NoWeights')})
    assert (tmp_path / 'out/epoch_1.pth').is_file()


# What is given away


def test_diverged_weights_are_not_published():
    state = build(more()).state_dict()
    state[f'{FC}0.B'][0, 0] = float('nan')
    with pytest.raises(InputError, match=r'NaN or infinite \(head\.fc\.weight\): the training diverged'):
        publish_checkpoint(dict(state_dict=state))
    large = build(more()).state_dict()
    large[f'{FC}0.A'].fill_(3e38), large[f'{FC}0.B'].fill_(3e38)  # finite, and their product is not
    with pytest.raises(InputError, match='the training diverged'):
        publish_checkpoint(dict(state_dict=large))


def test_merged_weights_that_predict_otherwise_are_not_written(tmp_path, monkeypatch):
    def wrong(checkpoint):
        published = publish_checkpoint(checkpoint)
        state = published['state_dict']
        return dict(published, state_dict={**state, 'head.fc.bias': state['head.fc.bias'] + 1e-2})

    monkeypatch.setattr('mmlt.engine.hooks.more.publish_checkpoint', wrong)
    with pytest.raises(InputError, match='Merging changed the model.* the last checkpoint is .*epoch_1.pth'):
        Runner.from_cfg(config(tmp_path, more(), [dict(type='mmlt.MOREHook')])).train()
    assert [p.name for p in tmp_path.glob('*.pth')] == ['epoch_1.pth']

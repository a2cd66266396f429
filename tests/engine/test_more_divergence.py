"""A training with MORE that diverges ends in a sentence, in all processes, and leaves no merged checkpoint."""

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import mmpretrain
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.logging import MessageHub
from mmengine.runner import Runner
from mmpretrain.registry import MODELS
from mmpretrain.structures import DataSample
from torch.utils.data import DataLoader, Dataset

from mmlt.checkpoints import read_checkpoint
from mmlt.checkpoints.weights import not_finite
from mmlt.engine.hooks.finite_loss import check_losses, check_weights, stop
from mmlt.errors import InputError
from mmlt.utils import leave_together

NAN, INF = float('nan'), float('inf')
CLASSIFIER = dict(
    type='ImageClassifier',
    backbone=dict(type='mmlt.CIFARResNet', depth=8, base_channels=4),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(type='LinearClsHead', num_classes=3, in_channels=16),
)


class Noise(Dataset):
    metainfo = dict(classes=('a', 'b', 'c'), class_counts=[8, 4, 4])

    def __len__(self):
        return 16

    def __getitem__(self, i):
        image = torch.randn(3, 8, 8, generator=torch.Generator().manual_seed(i))
        return dict(inputs=image, data_samples=DataSample().set_gt_label(i % 3))


class Poison(Hook):
    """Writes NaN into a weight after an iteration, as a step that goes wrong does."""

    priority = 'VERY_HIGH'

    def __init__(self, iteration, averaged=False):
        self.iteration, self.averaged = iteration, averaged

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        if runner.iter + 1 == self.iteration and not self.averaged:
            self.poison(runner.model)

    def after_train_epoch(self, runner):
        if self.averaged and runner.iter == self.iteration:
            self.poison(next(h for h in runner.hooks if hasattr(h, 'ema_model')).ema_model.module)

    @staticmethod
    @torch.no_grad()
    def poison(model):
        dict(model.named_parameters())['head.fc.bias'][0] = NAN


def train(folder, *hooks, epochs=2, lr=0.01, checkpoint=None, interval=20, **more):
    """MMEngine's own runner with its default hooks and MOREHook: 4 iterations an epoch."""
    Runner(
        model=dict(type='mmlt.MORE', classifier=CLASSIFIER, **more),
        work_dir=str(folder),
        train_dataloader=DataLoader(Noise(), 4, collate_fn=lambda b: {k: [s[k] for s in b] for k in b[0]}),
        train_cfg=dict(by_epoch=True, max_epochs=epochs),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=lr)),
        default_hooks=dict(checkpoint=dict(type='CheckpointHook', **(checkpoint or dict(interval=1)))),
        custom_hooks=[dict(type='mmlt.MOREHook', interval=interval), *hooks],
        default_scope='mmpretrain',
        log_level='ERROR',
        experiment_name=f'divergence_{folder.name}_{len(MessageHub._instance_dict)}',
        cfg=Config(dict(work_dir=str(folder))),
    ).train()


def weights(file):
    return read_checkpoint(file)['state_dict']


def checkpoints(folder):
    return sorted(p.name for p in folder.glob('*.pth'))


# Runs with default hooks only


@pytest.mark.parametrize('hooks', [(), (dict(type='mmlt.FiniteLossHook'),)], ids=['alone', 'with FiniteLossHook'])
def test_diverged_training_stops_and_merges_nothing(tmp_path, hooks):
    with pytest.raises(InputError) as error:
        train(tmp_path, *hooks, lr=1e12)
    message = str(error.value)
    assert 'became nan' in message or 'became inf' in message or 'became NaN or infinite' in message
    assert 'at iteration ' in message and 'no checkpoint was written yet' in message
    assert 'clip_grad=dict(max_norm=5), a learning rate of at most 0.02' in message
    assert checkpoints(tmp_path) == []


@pytest.mark.parametrize('peak', [2.0, 0.0])
def test_weights_that_break_in_the_last_step(tmp_path, peak):
    with pytest.raises(InputError, match=r'weights became NaN or infinite \(head\.fc\.bias\) at iteration 8 \(epoch 2'):
        train(tmp_path, Poison(8), peak=peak)
    assert checkpoints(tmp_path) == ['epoch_1.pth']
    assert not_finite(weights(tmp_path / 'epoch_1.pth')) is None


def test_weights_that_break_in_the_last_step_of_an_epoch_reach_no_checkpoint(tmp_path):
    with pytest.raises(InputError, match=r'iteration 8 \(epoch 2\); training stops, the last checkpoint is .*epoch_1'):
        train(tmp_path, Poison(8), epochs=3)
    assert checkpoints(tmp_path) == ['epoch_1.pth']


def test_weights_that_break_before_a_checkpoint_between_epochs(tmp_path):
    with pytest.raises(InputError, match=r'iteration 6 \(epoch 2\); training stops, the last checkpoint is .*iter_3'):
        train(tmp_path, Poison(6), checkpoint=dict(interval=3, by_epoch=False))
    assert checkpoints(tmp_path) == ['iter_3.pth']


def test_weights_are_looked_at_every_interval(tmp_path):
    with pytest.raises(InputError, match=r'weights became NaN or infinite .* at iteration 2 '):
        train(tmp_path, Poison(2), interval=2)


def test_averaged_weights_that_are_not_finite_are_not_merged(tmp_path):
    with pytest.raises(InputError, match=r'The weights are NaN or infinite \(head\.fc\.bias\).*at iteration 8'):
        train(tmp_path, dict(type='EMAHook'), Poison(8, averaged=True))
    assert 'merged.pth' not in checkpoints(tmp_path)


def test_merged_checkpoint_of_an_earlier_training_is_set_aside(tmp_path):
    train(tmp_path, epochs=1)
    earlier = weights(tmp_path / 'merged.pth')
    with pytest.raises(InputError):
        train(tmp_path, Poison(2), epochs=1)
    assert checkpoints(tmp_path) == ['epoch_1.pth', 'merged_earlier.pth']
    kept = weights(tmp_path / 'merged_earlier.pth')
    assert all(torch.equal(kept[k], v) for k, v in earlier.items())
    train(tmp_path, epochs=1)
    assert checkpoints(tmp_path) == ['epoch_1.pth', 'merged.pth', 'merged_earlier.pth']


def test_diverged_training_under_the_stock_tool(picture_folder, repo, monkeypatch):
    """MMPretrain's train.py and hooks: the last line of the traceback is the sentence."""
    stock = Path(mmpretrain.__file__).parent / '.mim'
    monkeypatch.chdir(picture_folder)
    monkeypatch.setenv('PYTHONPATH', str(repo))
    (picture_folder / 'more.py').write_text(
        f"""
_base_ = ['{stock}/configs/_base_/models/resnet18.py', '{stock}/configs/_base_/default_runtime.py']
custom_imports = dict(imports=['mmlt'])
model = dict(_delete_=True, type='mmlt.MORE', classifier={{{{_base_.model}}}})
custom_hooks = [dict(type='mmlt.MOREHook')]
pipeline = [dict(type='LoadImageFromFile'), dict(type='Resize', scale=(32, 32)), dict(type='PackInputs')]
train_dataloader = dict(dataset=dict(type='CustomDataset', data_root='{picture_folder}', ann_file='train.txt',
    data_prefix='images', pipeline=pipeline), sampler=dict(type='DefaultSampler', shuffle=True), batch_size=5,
    num_workers=0, persistent_workers=False)
train_cfg = dict(by_epoch=True, max_epochs=4)
optim_wrapper = dict(optimizer=dict(type='SGD', lr=1e9))
"""
    )
    options = ['model.classifier.head.num_classes=3', 'model.classifier.head.topk=(1,)']
    command = [sys.executable, stock / 'tools/train.py', 'more.py', '--work-dir', 'out', '--cfg-options', *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode != 0
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith('mmlt: ') and 'clip_grad=dict(max_norm=5)' in last, last
    assert not list((picture_folder / 'out').glob('merged*'))


# The sentence


@pytest.fixture
def hub():
    yield MessageHub.get_instance('test of divergence')
    del MessageHub._instance_dict['test of divergence']


def runner_of(hub, model=None, **wrapper):
    return SimpleNamespace(iter=4, epoch=0, message_hub=hub, model=model, optim_wrapper=SimpleNamespace(**wrapper))


@pytest.mark.parametrize(
    ('outputs', 'found'),
    [
        (dict(loss=1.0, loss_more=INF), r"MORE's penalty \(loss_more\) became inf at iteration 5"),
        (dict(loss=NAN, loss_more=1.0), 'The loss became nan at'),
        (dict(loss=INF, loss_more=NAN), r"The loss became inf and MORE's penalty \(loss_more\) became nan at"),
        (dict(loss_visual=torch.tensor(NAN)), 'The loss loss_visual became nan at'),
    ],
)
def test_what_is_not_finite_is_named(hub, outputs, found):
    with pytest.raises(InputError, match=found):
        check_losses(runner_of(hub), outputs, 5)


def test_first_tensor_that_is_not_finite():
    state = dict(count=torch.tensor(3), a=torch.ones(2), b=torch.tensor([1.0, -INF]), c=torch.tensor(NAN))
    assert not_finite(state) == 'b'
    assert not_finite({k: state[k] for k in ('count', 'a')}) is None
    assert not_finite(dict(count=torch.tensor(3))) is None
    assert not_finite(dict(large=torch.tensor(3e38))) is None


def test_remedies_are_those_not_in_use(hub):
    def said(lr, clip, **more):
        model = MODELS.build(dict(type='mmlt.MORE', classifier=CLASSIFIER, **more))
        runner = runner_of(hub, model, param_groups=[dict(lr=lr)], clip_grad_kwargs=clip)
        with pytest.raises(InputError) as error:
            stop(runner, 'the loss became nan', 5)
        return str(error.value).split(': ')[-1]

    clip, rate = 'optim_wrapper.clip_grad=dict(max_norm=5)', 'a learning rate of at most 0.02'
    assert said(0.1, None) == f'{clip}, {rate}, model.peak=0.2.'
    assert said(0.1, dict(max_norm=35)) == said(0.1, None)
    assert said(0.02, dict(max_norm=5)) == 'a learning rate below 0.02, model.peak=0.2.'
    assert said(0.1, None, peak=0.1) == f'{clip}, {rate}.'
    assert said(0.1, dict(max_norm=5), peak=0.0) == f'{rate}.'


# Processes


def _worker(rank, folder):
    """In the first process alone there is a NaN; both have to stop."""
    dist.init_process_group('gloo', init_method=f'file://{folder}/rendezvous', rank=rank, world_size=2)
    runner = runner_of(MessageHub.get_instance(f'divergence {rank}'), torch.nn.Linear(2, 2))
    messages = []
    check_losses(runner, dict(loss=torch.tensor(1.0)), 5)
    check_weights(runner, 4)
    if rank == 0:
        torch.nn.init.constant_(runner.model.bias, NAN)
    for check in (
        lambda: check_losses(runner, dict(loss=torch.tensor(NAN if rank == 0 else 1.0)), 5),
        lambda: check_weights(runner, 5),
    ):
        try:
            check()
        except InputError as error:
            messages.append(str(error))
    Path(folder, f'{rank}.txt').write_text('\n'.join(messages))
    leave_together()


def test_all_processes_stop_together(tmp_path, monkeypatch):
    monkeypatch.setenv('OMP_NUM_THREADS', '1')
    mp.spawn(_worker, (str(tmp_path),), nprocs=2)
    first, second = (Path(tmp_path, f'{rank}.txt').read_text().splitlines() for rank in (0, 1))
    assert first[0].startswith('The loss became nan at iteration 5') and '(bias) at iteration 5' in first[1]
    assert second[0].startswith('A loss of another process became NaN or infinite at iteration 5')
    assert '(those of another process) at iteration 5' in second[1]

"""Processes that read pictures: as many as the machine has cores for, and a line where a training waits for them."""

import logging
from types import SimpleNamespace

import pytest
import torch
from mmengine.runner import Runner as MMEngineRunner

from mmlt import InputError
from mmlt.engine import Runner, workers
from mmlt.engine.hooks import DataTimeHook, data_time
from mmlt.engine.hooks.data_time import remedy
from mmlt.engine.workers import accept_auto_workers, num_workers, with_workers


@pytest.fixture
def machine(monkeypatch):
    def make(cores, gpus=0, processes=1, local=None, slurm=None):
        monkeypatch.setattr(workers, 'cores', lambda: cores)
        monkeypatch.setattr(torch.cuda, 'is_available', lambda: gpus > 0)
        monkeypatch.setattr(torch.cuda, 'device_count', lambda: gpus)
        monkeypatch.setattr(workers, 'is_distributed', lambda: processes > 1)
        monkeypatch.setattr(workers, 'get_world_size', lambda: processes)
        for name, value in (('LOCAL_WORLD_SIZE', local), ('SLURM_CPUS_PER_TASK', slurm)):
            monkeypatch.delenv(name, raising=False)
            if value is not None:
                monkeypatch.setenv(name, str(value))

    return make


@pytest.mark.parametrize(
    'machine_is, expected',
    [
        (dict(cores=2), 1),
        (dict(cores=1), 1),
        (dict(cores=16), 4),
        (dict(cores=16, gpus=1), 15),
        (dict(cores=64, gpus=1), 16),
        (dict(cores=1, gpus=1), 1),
        (dict(cores=96, gpus=8, processes=8, local=8), 11),
        (dict(cores=96, gpus=8, processes=16, local=8), 11),
        (dict(cores=96, gpus=8, processes=16), 11),
        (dict(cores=8, processes=2), 1),
        (dict(cores=96, gpus=8, processes=16, slurm=10), 9),
        (dict(cores=6, gpus=8, processes=16, slurm=10), 5),
    ],
)
def test_workers_fit_the_machine(machine, machine_is, expected):
    machine(**machine_is)
    assert num_workers('auto') == expected
    assert with_workers(dict(num_workers='auto', persistent_workers=True)) == dict(
        num_workers=expected, persistent_workers=True
    )


def test_numbers_stay_and_settings_of_workers_need_some():
    given = dict(batch_size=2, num_workers=3, prefetch_factor=4)
    assert with_workers(given) == given
    assert with_workers(dict(num_workers=0, prefetch_factor=4, persistent_workers=True)) == dict(num_workers=0)
    assert with_workers(dict(batch_size=2)) == dict(batch_size=2)
    for wrong in ('many', -1, 1.5, None, True):
        with pytest.raises(InputError, match="num_workers is .*give a number of processes, .*or 'auto'"):
            num_workers(wrong)


class Numbers(torch.utils.data.Dataset):
    def __len__(self):
        return 4

    def __getitem__(self, index):
        return index


def test_runners_build_loaders_of_the_machines_workers(machine):
    machine(16)
    sampler = dict(type='DefaultSampler', shuffle=False)
    config = dict(dataset=Numbers(), sampler=sampler, batch_size=2, num_workers='auto', persistent_workers=True)
    assert Runner.build_dataloader(config).num_workers == 4
    assert config['num_workers'] == 'auto'


def test_the_stock_runner_takes_auto(machine):
    machine(16)
    sampler = dict(type='DefaultSampler', shuffle=False)
    config = dict(dataset=Numbers(), sampler=sampler, batch_size=2, num_workers='auto', persistent_workers=True)
    built = MMEngineRunner.build_dataloader(config)
    assert built.num_workers == 4 and built.persistent_workers
    assert MMEngineRunner.build_dataloader(built) is built
    given = dict(config, num_workers=0, prefetch_factor=2)
    assert MMEngineRunner.build_dataloader(given).num_workers == 0
    once = MMEngineRunner.build_dataloader
    accept_auto_workers()
    assert MMEngineRunner.build_dataloader is once


def test_training_validation_and_test_are_one_line(machine, monkeypatch):
    lines = []
    logger = logging.Logger('of a stage')
    monkeypatch.setattr(logger, 'info', lines.append)
    monkeypatch.setattr(workers.MMLogger, 'get_current_instance', lambda: logger)
    machine(16, gpus=1)
    for _ in range(3):
        with_workers(dict(num_workers='auto'))
    with_workers(dict(num_workers=3))
    assert lines == ["num_workers='auto': 15 to read pictures, of the 16 cores that this process may use."]


# Waiting for pictures


class Run:
    """A training of a hook, on a clock that is set by hand."""

    def __init__(self, monkeypatch, num_workers=2, **settings):
        self.now, self.told = 0.0, []
        monkeypatch.setattr(data_time.time, 'perf_counter', lambda: self.now)
        self.runner = SimpleNamespace(
            train_dataloader=SimpleNamespace(num_workers=num_workers),
            logger=SimpleNamespace(warning=self.told.append),
        )
        self.hook = DataTimeHook(interval=10, **settings)
        self.hook.before_train(self.runner)
        self.hook.before_train_epoch(self.runner)

    def steps(self, number, data, rest):
        """Steps whose batch is waited for, and that then take some seconds more."""
        for i in range(number):
            self.now += data
            self.hook.before_train_iter(self.runner, i)
            self.now += rest
            self.hook.after_train_iter(self.runner, i)
        return self


def test_waiting_is_told_once_with_its_share(machine, monkeypatch):
    machine(8)
    assert Run(monkeypatch).steps(50, 0.3, 0.7).told == [
        'Of the 1.000 s of a step, 0.300 s (30%) are waiting for pictures: raise train_dataloader.num_workers, which '
        'is 2, to 7 (cores that this process may use: 8).'
    ]


def test_the_first_steps_and_little_waiting_are_not_told(machine, monkeypatch):
    machine(8)
    assert not Run(monkeypatch).steps(10, 5.0, 1.0).steps(50, 0.19, 0.81).told
    assert Run(monkeypatch).steps(30, 0.0, 1.0).steps(10, 0.21, 0.79).told
    assert Run(monkeypatch, share=0.1).steps(20, 0.19, 0.81).told
    run = Run(monkeypatch).steps(19, 0.5, 0.5)
    run.hook.before_train(run.runner)  # the next training
    assert not run.steps(19, 0.5, 0.5).told


def test_evaluations_are_no_waiting(machine, monkeypatch):
    machine(8)
    run = Run(monkeypatch).steps(15, 0.0, 1.0)
    run.now += 100
    run.hook.after_val_epoch(run.runner)
    run.steps(5, 0.0, 1.0)
    run.now += 100
    run.hook.before_train_epoch(run.runner)
    assert not run.steps(10, 0.0, 1.0).told


@pytest.mark.parametrize('done', [True, False])
def test_waiting_while_the_gpu_works_does_not_count(machine, monkeypatch, done):
    machine(8, gpus=1)
    monkeypatch.setattr(torch.cuda, 'Event', lambda: SimpleNamespace(record=lambda: None, query=lambda: done))
    assert bool(Run(monkeypatch).steps(20, 0.5, 0.5).told) == done


@pytest.mark.gpu
def test_a_gpu_is_asked_and_not_waited_for():
    runner = SimpleNamespace(train_dataloader=SimpleNamespace(num_workers=1), logger=SimpleNamespace(warning=print))
    hook = DataTimeHook()
    hook.before_train(runner)
    torch.cuda.synchronize()
    torch.cuda._sleep(2_000_000_000)  # about a second
    hook.after_train_iter(runner, 0)
    hook.before_train_iter(runner, 1)
    assert not hook._waited
    torch.cuda.synchronize()
    hook.before_train_iter(runner, 1)
    assert hook._waited > 0


def test_remedies_work_on_the_machine_at_hand():
    assert remedy(0, 1).startswith('raise train_dataloader.num_workers, which is 0, to 1')
    assert remedy(3, 16).startswith('raise train_dataloader.num_workers, which is 3, to 15')
    assert 'num_workers is 15' in remedy(15, 16) and 'smaller pictures' in remedy(1, 1)

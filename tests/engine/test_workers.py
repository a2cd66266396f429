"""Processes that read pictures: as many as the machine has cores for, and a line where a training waits for them."""

import logging
from types import SimpleNamespace

import pytest
import torch
from mmengine.logging import MessageHub

from mmlt import InputError
from mmlt.engine import Runner, workers
from mmlt.engine.hooks import DataTimeHook
from mmlt.engine.hooks.data_time import remedy
from mmlt.engine.workers import num_workers, with_workers


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


# Waiting for pictures


def run(hook, times, num_workers=2):
    """The warnings of a training whose steps take (seconds of data, seconds in all)."""
    hub = MessageHub.get_instance('data_time')
    hub.log_scalars.clear()
    told = []
    runner = SimpleNamespace(
        message_hub=hub,
        train_dataloader=SimpleNamespace(num_workers=num_workers),
        logger=SimpleNamespace(warning=told.append),
    )
    hook.before_train(runner)
    for i, (data, whole) in enumerate(times):
        hub.update_scalar('train/data_time', data)
        hub.update_scalar('train/time', whole)
        hook.after_train_iter(runner, i)
    return told


def test_waiting_is_told_once_with_its_share(machine):
    machine(8)
    told = run(DataTimeHook(interval=10), [(0.3, 1.0)] * 50)
    assert told == [
        'Of the 1.000 s of a step, 0.300 s (30%) are waiting for pictures: raise train_dataloader.num_workers, which '
        'is 2, to 7 (this process may use 8 cores).'
    ]


def test_the_first_steps_and_little_waiting_are_not_told():
    assert not run(DataTimeHook(interval=10), [(5.0, 6.0)] * 10 + [(0.19, 1.0)] * 50)
    assert run(DataTimeHook(interval=10), [(0.0, 1.0)] * 30 + [(0.21, 1.0)] * 10)
    assert run(DataTimeHook(share=0.1, interval=10), [(0.19, 1.0)] * 20)


def test_nobody_measures():
    hub = MessageHub.get_instance('no_times')
    runner = SimpleNamespace(message_hub=hub, logger=logging.getLogger('none'))
    hook = DataTimeHook(interval=1)
    hook.before_train(runner)
    for i in range(3):
        hook.after_train_iter(runner, i)


def test_remedies_work_on_the_machine_at_hand():
    assert remedy(0, 1).startswith('raise train_dataloader.num_workers, which is 0, to 1')
    assert remedy(3, 16).startswith('raise train_dataloader.num_workers, which is 3, to 15')
    assert remedy(15, 16).startswith('15 processes read them on 16 cores, so smaller files help')

"""What a training's log tells of the machine."""

import subprocess
from types import SimpleNamespace

import mmengine.runner.runner
import pytest
import torch
from mmengine.config import Config

import mmlt
from mmlt.engine.environment import environment
from mmlt.engine.runner import Runner


def test_versions_without_another_process(monkeypatch):
    def refused(*args, **kwargs):
        raise AssertionError('a process was started')

    monkeypatch.setattr(subprocess, 'Popen', refused)
    found = environment()
    assert found['PyTorch'] == torch.__version__ and found['mmlt'] == mmlt.__version__
    assert {'mmpretrain', 'mmengine', 'open_clip_torch'} <= found.keys()


def test_gpus_are_counted_by_name(monkeypatch):
    names = ['H100', 'A100', 'H100']
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    monkeypatch.setattr(torch.cuda, 'device_count', lambda: 3)
    monkeypatch.setattr(torch.cuda, 'get_device_name', lambda i: names[i])
    monkeypatch.setattr(torch.backends.cudnn, 'version', lambda: 91900)
    assert environment()['GPUs'] == '2 x H100, 1 x A100'
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    assert environment()['GPUs'] == 'none'


def test_the_log_file_has_it_and_the_console_not(two_stages, monkeypatch, capfd):
    """With the settings of the run and its config, and without MMEngine's search for compilers."""

    def refused():
        raise AssertionError('MMEngine collects the environment')

    monkeypatch.setattr(mmengine.runner.runner, 'collect_env', refused)
    cfg = Config.fromfile('a.py')
    cfg.work_dir = 'work'
    cfg.experiment_name = 'log_file'  # MMEngine's own is the same within a second, and so is its logger
    Runner.from_cfg(cfg)
    (log,) = (two_stages / 'work').glob('*/*.log')
    text = log.read_text()
    assert f'PyTorch: {torch.__version__}' in text
    assert 'seed: 0' in text and 'cudnn_benchmark: True' in text
    assert 'Config:' in text and 'mmlt.OpenCLIPVision' in text
    shown = ''.join(capfd.readouterr())
    assert 'PyTorch:' not in shown and 'cudnn_benchmark' not in shown


@pytest.mark.parametrize('main', [True, False])
def test_only_the_main_process_tells(monkeypatch, main):
    monkeypatch.setattr('mmlt.engine.runner.is_main_process', lambda: main)
    lines, cfg = [], Config(dict(a=1))
    setting = dict(_randomness_cfg={}, _seed=3, _launcher='none', _world_size=2, cfg=cfg)
    Runner._log_env(SimpleNamespace(logger=SimpleNamespace(info=lines.append), **setting), dict(cudnn_benchmark=True))
    if not main:
        assert lines == []
        return
    machine, run, config = lines
    assert machine.startswith('System environment:') and f'PyTorch: {torch.__version__}' in machine
    assert run.startswith('Runtime environment:') and 'cudnn_benchmark: True' in run and 'seed: 3' in run
    assert config == f'Config:\n{cfg.pretty_text}'

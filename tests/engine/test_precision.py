"""What a training computes in, and that a step reads no number before it is needed."""

import math
from types import SimpleNamespace

import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import CheckpointHook, LoggerHook
from mmengine.logging import MessageHub

from mmlt.engine import Runner
from mmlt.engine.deferred import DeferredScalars, on_gpu, read_now
from mmlt.engine.hooks import FiniteLossHook, RuntimeInfoHook
from mmlt.engine.identity import decisive
from mmlt.engine.precision import apply_precision, fused_optimizer, resolve_precision
from mmlt.errors import InputError


@pytest.fixture
def gpu(monkeypatch):
    """A machine with a GPU, with or without bfloat16."""

    def has(bf16):
        monkeypatch.setattr(torch.cuda, 'is_available', lambda: bf16 is not None)
        monkeypatch.setattr(torch.cuda, 'is_bf16_supported', lambda *args, **kwargs: bool(bf16))

    return has


@pytest.mark.parametrize(
    ('bf16', 'asked', 'found'),
    [
        (None, 'auto', 'fp32'),
        (True, 'auto', 'bf16'),
        (False, 'auto', 'fp16'),
        (True, 'fp32', 'fp32'),
        (True, 'fp16', 'fp16'),
        (None, 'bf16', 'bf16'),
    ],
)
def test_auto_is_what_the_machine_has(gpu, bf16, asked, found):
    gpu(bf16)
    assert resolve_precision(asked) == found


def test_precisions_that_are_not_there(gpu):
    gpu(None)
    with pytest.raises(InputError, match="precision is 'half'; give one of auto, fp32, bf16, fp16"):
        resolve_precision('half')
    with pytest.raises(InputError, match="'fp16' needs a GPU"):
        resolve_precision('fp16')


def config(**settings):
    return Config(dict(optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1)), **settings))


@pytest.mark.parametrize(
    ('bf16', 'asked', 'kind', 'line'),
    [
        (None, 'auto', None, 'single precision'),
        (True, 'auto', 'mmlt.BFloat16OptimWrapper', 'bfloat16'),
        (False, 'auto', 'AmpOptimWrapper', 'half precision'),
        (True, None, None, None),
    ],
)
def test_the_wrapper_that_a_config_gets(gpu, bf16, asked, kind, line):
    gpu(bf16)
    cfg = config(precision=asked)
    told = apply_precision(cfg)
    assert cfg.optim_wrapper.get('type') == kind
    assert told is None if line is None else line in told and "precision='auto'" in told


def test_amp_keeps_its_meaning(gpu):
    for bf16, kind in ((True, 'AmpOptimWrapper'), (None, 'mmlt.BFloat16OptimWrapper')):
        gpu(bf16)
        cfg = config(precision='fp32')
        cfg.optim_wrapper.update(type='AmpOptimWrapper', loss_scale='dynamic', dtype='float16')
        told = apply_precision(cfg)
        assert cfg.optim_wrapper.type == kind
        assert ('AmpOptimWrapper' in told) if bf16 else ('--amp' in told and 'loss_scale' not in cfg.optim_wrapper)
    cfg = config(precision='auto')
    cfg.optim_wrapper.type = 'SomebodysOptimWrapper'
    assert apply_precision(cfg) is None and cfg.optim_wrapper.type == 'SomebodysOptimWrapper'


def test_precision_and_compilation_are_no_other_training():
    plain = decisive(config(model=dict(type='A', backbone=dict(type='B'))))
    assert plain == decisive(config(model=dict(type='A', backbone=dict(type='B', compile='auto')), precision='auto'))


def test_optimizers_on_a_gpu_are_fused(gpu):
    adamw = dict(type='AdamW', lr=0.1)
    gpu(None)
    assert fused_optimizer(adamw) == adamw
    gpu(True)
    assert fused_optimizer(adamw) == dict(adamw, fused=True)
    for other in (dict(type='LAMB', lr=0.1), dict(adamw, foreach=True), dict(adamw, fused=False)):
        assert fused_optimizer(other) == other


def test_the_log_tells_the_precision(two_stages):
    cfg = Config.fromfile('a.py')
    cfg.work_dir, cfg.precision = 'w', 'bf16'
    cfg.train_cfg.max_epochs = 1
    runner = Runner.from_cfg(cfg)
    told = []
    runner.logger.handle = lambda record: told.append(record.getMessage())
    runner.train()
    lines = [line for line in told if 'The training runs in' in line]
    assert lines == ["The training runs in bfloat16 where that is enough (autocast) (precision='bf16')."]
    assert type(runner.optim_wrapper).__name__ == 'BFloat16OptimWrapper'


# Numbers that are read together


def test_scalars_are_kept_in_order():
    kept = DeferredScalars()
    assert kept.read() == []
    kept.add(3, dict(a=torch.tensor(1.5), b=2))
    kept.add(4, {})
    kept.add(5, dict(a=torch.tensor([math.inf])))
    assert kept.read() == [(3, dict(a=1.5, b=2.0)), (5, dict(a=math.inf))] and kept.read() == []
    assert not on_gpu(dict(a=torch.ones(()), b=1.0)) and on_gpu(dict(a=torch.ones((), device='meta')))


def runner_at(iteration, hooks=(), length=10):
    hub = MessageHub.get_instance(f'deferred {id(hooks)}')
    loader = type('Loader', (), {'__len__': lambda self: length})()
    return SimpleNamespace(
        iter=iteration, epoch=0, max_iters=20, hooks=list(hooks), train_dataloader=loader, message_hub=hub, model=None,
        optim_wrapper=SimpleNamespace(),
    )  # fmt: skip


def test_when_they_are_read():
    hooks = [LoggerHook(interval=4)]
    assert [i for i in range(20) if read_now(runner_at(i, hooks), i % 10)] == [3, 7, 9, 11, 13, 15, 17, 19]
    saving = [LoggerHook(interval=100), CheckpointHook(interval=6, by_epoch=False)]
    assert [i for i in range(20) if read_now(runner_at(i, saving), i % 10)] == [5, 9, 11, 17, 19]


def test_the_log_gets_the_same_numbers(monkeypatch):
    """With losses on a GPU: MMEngine's history, made later."""
    hooks = [LoggerHook(interval=4)]
    losses = [torch.tensor(1.0 / (i + 1)) for i in range(10)]
    histories = []
    for deferred in (False, True):
        monkeypatch.setattr('mmlt.engine.hooks.runtime_info.on_gpu', lambda values, d=deferred: d)
        hook, runner = RuntimeInfoHook(), runner_at(0, hooks)
        runner.message_hub = MessageHub.get_instance(f'deferred numbers {deferred}')
        for i, loss in enumerate(losses):
            runner.iter = i
            hook.after_train_iter(runner, i, None, dict(loss=loss))
            known = runner.message_hub.log_scalars.get('train/loss')
            expected = 10 if i == 9 else (i + 1) // 4 * 4 if deferred else i + 1
            assert (0 if known is None else len(known.data[0])) == expected
        histories.append(runner.message_hub.log_scalars['train/loss'].data[0].tolist())
    assert histories[0] == histories[1] == [loss.item() for loss in losses]


def test_the_first_wrong_loss_is_named(monkeypatch):
    monkeypatch.setattr('mmlt.engine.hooks.finite_loss.on_gpu', lambda values: True)
    hook = FiniteLossHook()
    for i in range(4):
        runner = runner_at(i, [LoggerHook(interval=4)])
        losses = dict(loss=torch.tensor(math.nan if i >= 1 else 1.0))
        if i < 3:
            hook.after_train_iter(runner, i, None, losses)
        else:
            with pytest.raises(InputError, match='The loss became nan at iteration 2 '):
                hook.after_train_iter(runner, i, None, losses)

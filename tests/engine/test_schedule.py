"""The cosine by epoch, against the rates that the published codes had."""

import math

import pytest
import torch
from mmengine.registry import PARAM_SCHEDULERS
from torch import nn

from mmlt.errors import InputError


def build(optimizer, epochs, **kwargs):
    return PARAM_SCHEDULERS.build(
        dict(type='mmlt.EpochCosineLR', end=epochs, **kwargs), default_args=dict(optimizer=optimizer)
    )


def rates(epochs, lrs=(1.0,), **kwargs):
    optimizer = torch.optim.SGD([dict(params=[nn.Parameter(torch.zeros(1))], lr=lr) for lr in lrs])
    scheduler = build(optimizer, epochs, **kwargs)
    seen = []
    for _ in range(epochs):
        seen.append([g['lr'] for g in optimizer.param_groups])
        optimizer.step()
        scheduler.step()
    return seen, scheduler, optimizer


def test_vlltr_stage_1():
    """Warm-up from 1e-6, both first epochs at t = 0, then the cosine as if there had been no warm-up."""
    lr = 5e-5
    expected = [1e-6, 1e-6, *(1e-6 + t * (lr - 1e-6) / 5 for t in range(1, 5))]
    expected += [lr * (1 + math.cos(math.pi * t / 50)) / 2 for t in range(5, 49)]
    seen, *_ = rates(50, [lr], lag=1, warmup_epochs=5)
    assert [r for (r,) in seen] == pytest.approx(expected, rel=1e-12)


def test_two_rates_and_a_floor():
    """As timm's: the floor is the same for all groups, so that a group of a smaller rate rises to it."""
    seen, *_ = rates(4, [2e-4, 1e-6], lag=1, eta_min=1e-5)
    for i, lr in enumerate((2e-4, 1e-6)):
        expected = [1e-5 + (lr - 1e-5) * (1 + math.cos(math.pi * t / 4)) / 2 for t in (0, 0, 1, 2)]
        assert [r[i] for r in seen] == pytest.approx(expected, rel=1e-12)


def test_ballad_is_stepped_before_the_epoch():
    """Epoch e from 1 has (1 + cos(pi e / E)) / 2; the last has none."""
    seen, *_ = rates(10, [0.2], lag=-1)
    assert [r for (r,) in seen] == pytest.approx(
        [0.1 * (1 + math.cos(math.pi * e / 10)) for e in range(1, 11)], abs=1e-17
    )


def test_resumes():
    """A state that is loaded in the middle goes on with the same rates."""
    whole, *_ = rates(6, lag=1, warmup_epochs=2)
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    first = build(optimizer, 6, lag=1, warmup_epochs=2)
    for _ in range(3):
        optimizer.step()
        first.step()
    state, groups = first.state_dict(), optimizer.state_dict()
    again = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    second = build(again, 6, lag=1, warmup_epochs=2)
    again.load_state_dict(groups)
    second.load_state_dict(state)
    rest = []
    for _ in range(3):
        rest.append(again.param_groups[0]['lr'])
        again.step()
        second.step()
    assert rest == [r for (r,) in whole[3:]]


@pytest.mark.parametrize(
    ('wrong', 'word'), [(dict(by_epoch=False), 'by_epoch'), (dict(warmup_epochs=-1), 'warmup_epochs')]
)
def test_bad_settings(wrong, word):
    """One sentence that names the setting."""
    with pytest.raises(InputError, match=word):
        rates(6, **wrong)


def test_a_warm_up_as_long_as_the_training_is_told(monkeypatch):
    told = []
    monkeypatch.setattr('mmlt.engine.schedule.print_log', lambda message, **kwargs: told.append(message))
    seen, *_ = rates(3, warmup_epochs=5)
    assert [r for (r,) in seen] == pytest.approx([1e-6, 1e-6 + (1 - 1e-6) / 5, 1e-6 + 2 * (1 - 1e-6) / 5])
    assert len(told) == 1 and 'warmup_epochs' in told[0]

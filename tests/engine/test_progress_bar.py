import io
import logging
import sys
from types import SimpleNamespace

import torch
from mmengine.config import ConfigDict

from mmlt.engine import ProgressBarHook


class Terminal(io.StringIO):
    def isatty(self):
        return True


def steps(hook, monkeypatch, stream):
    monkeypatch.setattr(sys, 'stderr', stream)
    monkeypatch.setenv('COLUMNS', '100')
    runner = SimpleNamespace(
        logger=logging.getLogger('bar'), cfg=ConfigDict(stage_name='phase_a'), max_iters=10, iter=4
    )
    hook.before_train(runner)
    for i in range(6):
        hook.after_train_iter(runner, i, outputs={'loss': torch.tensor(0.25, requires_grad=True)})
    seen = hook._bar.n if hook._bar else None
    hook.after_train(runner)
    return seen, stream.getvalue()


def test_bar_goes_from_the_resumed_iteration_to_the_end(monkeypatch):
    seen, shown = steps(ProgressBarHook(), monkeypatch, Terminal())
    assert seen == 10
    assert 'phase_a' in shown and '4/10' in shown


def test_no_bar_where_nobody_looks(monkeypatch):
    seen, shown = steps(ProgressBarHook(), monkeypatch, io.StringIO())
    assert seen is None and shown == ''

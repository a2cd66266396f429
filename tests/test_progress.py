"""Progress of long work: a bar in a terminal, few lines in a log."""

import io
import sys

import pytest

from mmlt.utils import progress, show_progress


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def log(monkeypatch):
    """Lines of the log, by a clock that only work moves on."""
    lines, clock = [], [100.0]
    monkeypatch.setattr(progress, 'print_log', lambda line, logger: lines.append(line))
    monkeypatch.setattr(progress.time, 'monotonic', lambda: clock[0])

    def work(seconds, items):
        done = []
        for item in show_progress(items, 'Work'):
            done.append(item)
            clock[0] += seconds
        return done, lines

    return work


def test_a_log_has_a_line_every_half_minute(log, monkeypatch):
    monkeypatch.setattr(sys, 'stderr', stream := io.StringIO())
    done, lines = log(10, range(7))
    assert done == list(range(7)) and stream.getvalue() == ''
    assert lines == ['Work: 3 of 7, 30 s', 'Work: 6 of 7, 60 s', 'Work: all 7, 70 s']


def test_of_short_work_a_log_has_nothing(log, monkeypatch):
    """A bar would leave two states in it, its first and its last."""
    monkeypatch.setattr(sys, 'stderr', stream := io.StringIO())
    assert log(9.9, ['a', 'b', 'c']) == (['a', 'b', 'c'], []) and stream.getvalue() == ''
    assert log(31, ['a']) == (['a'], ['Work: all 1, 31 s'])


def test_a_bar_in_a_terminal(log, monkeypatch):
    monkeypatch.setattr(sys, 'stderr', stream := Terminal())
    assert log(31, ['a', 'b']) == (['a', 'b'], []) and 'Work: 100%' in stream.getvalue()


def test_other_processes_are_quiet(log, monkeypatch):
    monkeypatch.setattr(progress, 'is_main_process', lambda: False)
    for stream in (Terminal(), io.StringIO()):
        monkeypatch.setattr(sys, 'stderr', stream)
        assert log(31, ['a', 'b']) == (['a', 'b'], []) and stream.getvalue() == ''

"""Killed, cut off, without room, twice at once: a training ends as the undisturbed one, or in one sentence.

python -m pytest -m slow tests/reliability [--kills 60] [--campaign-seed 0]
"""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

pytestmark = pytest.mark.slow
REPO = Path(__file__).parents[2]

KINDS = {
    "BALLAD's phase A, caching, phase B": 'b.py',
    'CVLP, anchor selection, LGR': 'lgr.py',
    'LIFT': 'lift.py',
    'MORE': 'more.py',
    'by iterations': 'steps.py',
}


@pytest.fixture(scope='session')
def undisturbed(trainings, server):
    """Of every kind a finished training: its folder and how long it took."""
    os.chdir(trainings)
    found = {}
    for kind, config in KINDS.items():
        begin = time.monotonic()
        pid = server(start=['train', config, '--work-dir', f'whole-{config}'], log=f'whole-{config}.log')
        assert server(wait=pid) == 0, Path(f'whole-{config}.log').read_text()[-3000:]
        found[kind] = f'whole-{config}', time.monotonic() - begin
    return found


@pytest.mark.parametrize('number', range(6))
@pytest.mark.parametrize('kind', KINDS)
def test_kills(trainings, server, undisturbed, count, outcome, request, kind, number):
    """kill -9 at random moments, several in a row, and then the same command."""
    os.chdir(trainings)
    kills = request.config.getoption('--kills', 60)
    own = len(range(list(KINDS).index(kind) + len(KINDS) * number, kills, 6 * len(KINDS)))
    expected, seconds = undisturbed[kind]
    config, folder = KINDS[kind], f'killed-{number}-{KINDS[kind]}'
    moments = np.random.default_rng([request.config.getoption('--campaign-seed', 0), number, len(kind)])
    for _ in range(own):
        pid = server(start=['train', config, '--work-dir', folder], log='killed.log')
        time.sleep(moments.uniform(0.05, 1.0) * seconds)
        with contextlib.suppress(ProcessLookupError):  # it was faster
            os.killpg(pid, signal.SIGKILL)
        server(wait=pid)
    pid = server(start=['train', config, '--work-dir', folder], log='killed.log')
    found, what = outcome(server(wait=pid), 'killed.log', folder, expected)
    for _ in range(own):
        count(f'kill -9: {kind}', found)
    assert found == 'recovered, equal', what
    shutil.rmtree(folder)


def launch(config, folder, log):
    """Two processes by torchrun, as tools/dist_train.sh starts them."""
    command = [sys.executable, '-W', 'ignore', '-m', 'torch.distributed.run', '--standalone', '--nproc_per_node=2']
    command += [str(REPO / 'tools/train.py'), config, '--work-dir', folder, '--launcher', 'pytorch']
    environment = {**os.environ, 'OMP_NUM_THREADS': '1', 'PYTHONPATH': str(REPO)}
    with open(log, 'w') as file:
        return subprocess.Popen(command, stdout=file, stderr=file, env=environment, start_new_session=True)


def ranks(launcher) -> list[int]:
    """Process ids of the trainings of a launcher."""
    children = Path(f'/proc/{launcher.pid}/task/{launcher.pid}/children')
    return [int(pid) for pid in children.read_text().split()] if children.exists() else []


@pytest.mark.parametrize('kind', list(KINDS)[:2])
def test_kills_of_two_processes(trainings, count, outcome, request, kind):
    """All at once, or one of the two, whose launcher stops the other."""
    os.chdir(trainings)
    config, whole, folder = KINDS[kind], f'two-whole-{KINDS[kind]}', f'two-{KINDS[kind]}'
    begin = time.monotonic()
    assert launch(config, whole, 'two.log').wait(300) == 0, Path('two.log').read_text()[-3000:]
    seconds = time.monotonic() - begin
    moments = np.random.default_rng([request.config.getoption('--campaign-seed', 0), 2, len(kind)])
    for one in (False, True, True):
        process = launch(config, folder, 'two.log')
        time.sleep(moments.uniform(0.3, 1.0) * seconds)
        with contextlib.suppress(ProcessLookupError, IndexError):  # it was faster
            os.kill(ranks(process)[-1], signal.SIGKILL) if one else os.killpg(process.pid, signal.SIGKILL)
        process.wait(120)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    status = launch(config, folder, 'two.log').wait(300)
    found, what = outcome(status, 'two.log', folder, whole)
    for _ in range(3):
        count('kill -9, two processes', found)
    assert found == 'recovered, equal', what


@pytest.mark.parametrize('kind', KINDS)
def test_files_that_are_cut_off(trainings, server, undisturbed, count, outcome, kind):
    """Every file of a finished or a half finished training, at three places."""
    os.chdir(trainings)
    expected, _ = undisturbed[kind]
    config, wrong = KINDS[kind], []
    files = [
        p for p in sorted(Path(expected).rglob('*')) if p.is_file() and p.stat().st_size and 'vis_data' not in str(p)
    ]
    files = [p for p in files if p.suffix not in ('.log', '.png', '.py') and p.name != '.lock']
    for path in files:
        for place in (0.0, 0.5, 1.0):
            shutil.rmtree('cut', ignore_errors=True)
            shutil.copytree(expected, 'cut')
            victim = Path('cut') / path.relative_to(expected)
            size = victim.stat().st_size
            os.truncate(victim, min(int(place * size), size - 1))
            pid = server(start=['train', config, '--work-dir', 'cut'], log='cut.log')
            found, what = outcome(server(wait=pid), 'cut.log', 'cut', None)
            if found == 'recovered, equal':
                one, two = (json.loads((Path(f) / 'shot_report.json').read_text()) for f in (expected, 'cut'))
                found = 'recovered, equal' if one == two else 'other'
            count(f'cut off: {kind}', found)
            if found == 'other':
                wrong.append(f'{victim} at {place}: {what}')
    assert not wrong, '\n'.join(wrong)


@pytest.mark.parametrize('kind', KINDS)
def test_a_full_disk(trainings, server, undisturbed, count, outcome, kind):
    """No file may be larger than so many bytes; then there is room again."""
    os.chdir(trainings)
    expected, _ = undisturbed[kind]
    sizes = sorted({p.stat().st_size for p in Path(expected).rglob('*') if p.is_file() and p.stat().st_size > 1})
    wrong = []
    for size in sizes[:: max(1, len(sizes) // 6)]:
        shutil.rmtree('full', ignore_errors=True)
        pid = server(start=['train', KINDS[kind], '--work-dir', 'full'], log='full.log', file_size=size - 1)
        told, what = outcome(server(wait=pid), 'full.log', 'full', expected)
        # The log itself may be what finds no room.
        if told == 'other' and Path('full.log').stat().st_size < size - 200:
            wrong.append(f'{size}: {what}')
        pid = server(start=['train', KINDS[kind], '--work-dir', 'full'], log='full.log')
        found, what = outcome(server(wait=pid), 'full.log', 'full', expected)
        count(f'full disk: {kind}', found)
        if found != 'recovered, equal':
            wrong.append(f'{size}, with room again: {what}')
    assert not wrong, '\n'.join(wrong)


@pytest.mark.parametrize('name', ['SIGINT', 'SIGTERM'])
def test_signals(trainings, server, undisturbed, count, outcome, name):
    os.chdir(trainings)
    expected, seconds = undisturbed['LIFT']
    for i in range(4):
        folder = f'{name}-{i}'
        pid = server(start=['train', 'lift.py', '--work-dir', folder], log='signal.log')
        time.sleep((0.2 + 0.2 * i) * seconds)
        os.kill(pid, signal.Signals[name])
        status = server(wait=pid)
        text = Path('signal.log').read_text()
        assert status in (0, 130), text[-2000:]
        told, what = outcome(status, 'signal.log', folder, expected)
        assert told != 'other' and (status == 0 or 'goes on from the last checkpoint' in text), what
        pid = server(start=['train', 'lift.py', '--work-dir', folder], log='signal.log')
        found, what = outcome(server(wait=pid), 'signal.log', folder, expected)
        count(name, found)
        assert found == 'recovered, equal', what


def test_two_trainings_in_one_folder(trainings, server, undisturbed, count, outcome):
    os.chdir(trainings)
    expected, _ = undisturbed['LIFT']
    pids = [server(start=['train', 'lift.py', '--work-dir', 'twice'], log=f'twice-{i}.log') for i in range(2)]
    statuses = [server(wait=pid) for pid in pids]
    assert sorted(statuses) == [0, 1], [Path(f'twice-{i}.log').read_text()[-2000:] for i in range(2)]
    log = f'twice-{statuses.index(1)}.log'
    assert (
        outcome(1, log, 'twice', expected)[0] == 'one sentence' and 'is in use by a training' in Path(log).read_text()
    )
    found, what = outcome(0, 'twice-0.log', 'twice', expected)
    count('two in one folder', found)
    count('two in one folder', 'one sentence')
    assert found == 'recovered, equal', what


def test_a_folder_that_cannot_be_written(trainings, server, count, outcome):
    os.chdir(trainings)
    pid = server(start=['train', 'lift.py', '--work-dir', '/proc/none'], log='readonly.log')
    found, what = outcome(server(wait=pid), 'readonly.log', '', '')
    assert found == 'one sentence', what
    count('read-only folder', 'one sentence')

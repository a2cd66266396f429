"""Two trainings in one work directory, and one that cannot be written."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mmlt import InputError
from mmlt.engine.lock import lock_folder

HOLD = (
    'import sys, time; from mmlt.engine.lock import lock_folder; lock_folder("a"); print(1, flush=True); time.sleep(60)'
)


@pytest.fixture
def other(tmp_path, monkeypatch, repo):
    """A process that holds the folder a, with a child that outlives it."""
    monkeypatch.chdir(tmp_path)
    code = f'import os\n{HOLD.replace("time.sleep", "os.fork(); time.sleep")}'
    process = subprocess.Popen(
        [sys.executable, '-c', code], stdout=subprocess.PIPE, text=True, env={**os.environ, 'PYTHONPATH': str(repo)},
        start_new_session=True,
    )  # fmt: skip
    assert process.stdout.readline()
    yield process
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def test_a_folder_in_use_is_named_and_free_when_its_process_is_killed(other, two_stages, train_tool, tmp_path):
    with pytest.raises(SystemExit, match=rf"^mmlt: 'a' is in use by a training \(process {other.pid} on .*--work-dir"):
        train_tool.main(['a.py', '--work-dir', 'a'])
    os.kill(other.pid, signal.SIGKILL)
    other.wait()
    for _ in range(50):  # the child is still there
        try:
            lock_folder('a')
            break
        except InputError:
            time.sleep(0.1)
    else:
        pytest.fail('the folder stays locked')
    lock_folder('a')  # twice by one process
    assert Path('a/.lock').read_text().startswith(f'process {os.getpid()} on ')


def test_what_cannot_be_written_is_told_before_the_training(two_stages, train_tool):
    Path('file').write_text('')
    for folder in ('/proc/none', 'file/x'):
        with pytest.raises(SystemExit, match=f"^mmlt: The work directory '{folder}' cannot be written .*--work-dir"):
            train_tool.main(['a.py', '--work-dir', folder])

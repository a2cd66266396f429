"""The command that trains, as it is stopped."""

import os
import subprocess
import sys

# Python makes the object, the signal comes in its __init__, and its __del__ misses what that had not set yet.
STOPPED = """
import sys

import mmlt.cli.train

class HalfMade:
    def __init__(self):
        raise KeyboardInterrupt

    def __del__(self):
        self.workers

mmlt.cli.train.train = lambda args: HalfMade()
mmlt.cli.train.main(['config.py'])
"""


def test_a_stop_says_one_sentence(repo, tmp_path):
    env = {**os.environ, 'PYTHONPATH': str(repo)}
    command = [sys.executable, '-W', 'ignore', '-c', STOPPED]
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 130
    assert done.stderr == 'mmlt: stopped. The same command goes on from the last checkpoint.\n'

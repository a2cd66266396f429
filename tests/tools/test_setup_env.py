"""What the two commands say when Python, disk or network is not enough."""

import os
import shutil
import subprocess
import sys

import pytest


@pytest.fixture
def fresh(repo, tmp_path):
    """A checkout without .venv, far from any other; returns a function that runs quickstart.sh there."""
    root = tmp_path / 'checkout'
    (root / 'tools').mkdir(parents=True)
    for name in ('tools/setup_env.sh', 'tools/quickstart.sh', 'requirements.txt', 'pyproject.toml', 'README.md'):
        shutil.copy(repo / name, root / name)
    fakes = tmp_path / 'fakes'
    fakes.mkdir()

    def run(**env):
        env = {**os.environ, 'PYTHON': sys.executable, 'PATH': f'{fakes}:{os.environ["PATH"]}', **env}
        command = ['bash', str(root / 'tools/quickstart.sh')]
        return subprocess.run(command, capture_output=True, text=True, timeout=200, env=env, cwd='/')

    run.fakes = fakes
    return run


def fake(folder, name, text):
    (folder / name).write_text(f'#!/usr/bin/env bash\n{text}\n')
    (folder / name).chmod(0o755)


def test_python_that_is_too_old_is_named(fresh):
    fake(fresh.fakes, 'oldpython', 'exit 1')
    done = fresh(PYTHON=str(fresh.fakes / 'oldpython'))
    assert done.returncode == 1
    assert "oldpython' is not Python 3.10 or newer" in done.stderr


def test_full_disk_is_named(fresh):
    fake(fresh.fakes, 'df', 'printf "Filesystem 1024-blocks Used Available Capacity Mounted\\nx 1 1 2097152 1%% /\\n"')
    done = fresh()
    assert done.returncode == 1
    assert 'need about 9 GB' in done.stderr and 'only 2 GB are free' in done.stderr


def test_missing_network_is_named(fresh):
    fake(fresh.fakes, 'df', 'printf "Filesystem 1024-blocks Used Available Capacity Mounted\\nx 1 1 99999999 1%% /\\n"')
    blocked = {'PIP_CONFIG_FILE': os.devnull, 'PIP_INDEX_URL': 'http://127.0.0.1:9/simple', 'PIP_RETRIES': '0'}
    unset = {k: '' for k in os.environ if k.startswith('PIP_') and k not in blocked}
    done = fresh(**blocked, **unset)
    assert done.returncode == 1
    assert 'package index could not be reached: check the network' in done.stderr

"""The notebook runs as it stands."""

import json
import subprocess
import sys

import pytest


@pytest.mark.slow
def test_notebook(tmp_path, repo):
    pytest.importorskip('mlxtend')
    cells = json.loads((repo / 'docs/fit.ipynb').read_text())['cells']
    assert not any(cell.get('outputs') for cell in cells)
    script = '\n\n'.join(''.join(cell['source']) for cell in cells if cell['cell_type'] == 'code')
    env = {'PYTHONPATH': str(repo), 'OMP_NUM_THREADS': '2', 'PATH': '/usr/bin:/bin', 'HOME': str(tmp_path)}
    done = subprocess.run([sys.executable, '-c', script], cwd=tmp_path, env=env, capture_output=True, text=True)
    assert not done.returncode, done.stderr[-2000:]
    assert 'many (' in done.stdout and 'report.html' in done.stdout
    assert (tmp_path / 'runs/digits/report.html').stat().st_size > 20_000

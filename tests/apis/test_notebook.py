"""The notebook runs as it stands, and the page names what there is."""

import inspect
import json
import subprocess
import sys
from dataclasses import fields

import pytest

from mmlt.apis.exporting import ExportOptions
from mmlt.apis.fit import METHODS, Run, fit
from mmlt.preparation.prepare import PrepareOptions


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


def test_page_names_all_options(repo):
    page = (repo / 'docs/fit.md').read_text()
    own = set(inspect.signature(fit).parameters) - {'options'}
    prepared = {f.name for f in fields(PrepareOptions)} - {'base', 'overwrite'}
    exported = {f.name for f in fields(ExportOptions)} - {'config', 'checkpoint'}
    assert not [name for name in own | prepared if f'`{name}`' not in page]
    assert not [name for name in exported | set(METHODS) if name not in page]
    assert not [
        name for name in vars(Run) if name in ('predict', 'test', 'report', 'export') and f'run.{name}(' not in page
    ]

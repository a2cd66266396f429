"""The benchmark of the way to the first step."""

import re
import subprocess
import sys

import pytest


@pytest.mark.slow
def test_phases_of_a_start(two_stages, repo):
    """Of a stage that has a shared folder, too; nothing is left behind."""
    config = two_stages / 'b.py'
    config.write_text(config.read_text().replace('load_from=True', "load_from=True, work_dir='shared'"))
    before = {path.name for path in two_stages.iterdir()}
    command = [sys.executable, repo / 'tools/benchmarks/startup.py', 'b.py']
    result = subprocess.run(command, cwd=two_stages, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    phases = {name.strip(): float(s) for name, s in re.findall(r'│ (.+?) +│ +([\d.-]+) │', result.stdout)}
    assert {'towers', 'pretrained weights', 'a try of later stages', 'data sets', 'first step'} <= phases.keys()
    assert min(phases.values()) >= 0  # none is counted twice
    assert {path.name for path in two_stages.iterdir()} == before

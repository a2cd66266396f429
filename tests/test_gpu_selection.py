"""Which tests see a GPU."""

import os
import subprocess
import sys

import pytest
import torch

from tests.conftest import gpu_is_asked


@pytest.mark.parametrize(
    ('arguments', 'asked'),
    [
        ('-m gpu', True),
        ('-mgpu -q', True),
        ('-m=gpu', True),
        ('tests/gpu -m|gpu and not slow', True),
        ('-m slow -m gpu', True),
        ('-m gpu -m slow', False),
        ('-m|not gpu', False),
        ('-m|not slow and not gpu', False),
        ('-m|not (gpu)', False),
        ('-m|gpu or slow', False),
        ('tests/gpu', False),
        ('-k gpu', False),
        ('', False),
        ('-m', False),
    ],
)
def test_who_asks_for_it(arguments, asked):
    words = arguments.split('|') if '|' in arguments else arguments.split()
    words = [*words[0].split(), *words[1:]] if '|' in arguments else words
    assert gpu_is_asked(words) == asked


@pytest.mark.skipif(os.environ['MMLT_TESTS'] == 'gpu', reason='a GPU was asked for')
def test_others_see_none():
    """Nor do the processes that they start."""
    assert not torch.cuda.is_available()
    code = 'import os; print(repr(os.environ["CUDA_VISIBLE_DEVICES"]))'
    assert subprocess.check_output([sys.executable, '-c', code], text=True).strip() == "''"


def test_without_a_gpu_one_line_tells_it(repo):
    """A line of pytest's summary for all tests that are left out."""
    command = [sys.executable, '-m', 'pytest', '-q', '-p', 'no:cacheprovider', '-m', 'gpu', 'tests/gpu/test_parity.py']
    environment = {k: v for k, v in os.environ.items() if not k.startswith(('MMLT_TESTS', 'PYTEST_'))}
    result = subprocess.run(command, cwd=repo, env=environment, capture_output=True, text=True)
    if 'SKIPPED' not in result.stdout:
        pytest.skip('there is a GPU')
    assert result.returncode == 0, result.stdout
    (line,) = (s for s in result.stdout.splitlines() if s.startswith('SKIPPED'))
    assert 'there is no GPU' in line
    assert ' skipped' in result.stdout.splitlines()[-1]

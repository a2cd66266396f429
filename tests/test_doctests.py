"""Examples in docstrings are what the functions do."""

import doctest
import importlib
from pathlib import Path

import pytest

import mmlt

ROOT = Path(mmlt.__file__).parent
MODULES = sorted(
    '.'.join(path.relative_to(ROOT.parent).with_suffix('').parts)
    for path in ROOT.rglob('*.py')
    if '>>>' in path.read_text(encoding='utf-8')
)


@pytest.mark.parametrize('name', MODULES)
def test_examples(name):
    flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    found = doctest.testmod(importlib.import_module(name), optionflags=flags)
    assert not found.failed


def test_there_are_examples():
    assert len(MODULES) > 10

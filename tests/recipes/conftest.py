"""The replay tool as a module, which is also a program of its own."""

import importlib.util
import sys
from pathlib import Path

import pytest


@pytest.fixture(scope='session')
def tool():
    """tests/recipes/replay.py."""
    spec = importlib.util.spec_from_file_location('mmlt_replay', Path(__file__).with_name('replay.py'))
    module = importlib.util.module_from_spec(spec)
    sys.modules['mmlt_replay'] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module

"""The replay tool, which is also a program of its own."""

import pytest

from tests.recipes import replay


@pytest.fixture(scope='session')
def tool():
    """tests/recipes/replay.py."""
    return replay

"""The data sets of ``checks.yml``, also for the command line, which does not wait for torch."""

from functools import cache
from pathlib import Path

import yaml


@cache
def published_facts() -> dict[str, dict]:
    """What is published of every data set, by its name."""
    return yaml.safe_load(Path(__file__).with_name('checks.yml').read_text(encoding='utf-8'))

"""MMEngine's layout of a config's text, made once."""

from __future__ import annotations

import functools
from collections.abc import Callable

import mmengine.config.config


def remembered(lay_out: Callable, number: int = 8) -> Callable:
    """A layout of texts that knows the last few: the same text and style give the same layout.

    Args:
        lay_out (Callable): yapf's ``FormatCode``, of a text and keywords that
            are dicts, strings, numbers or None.
        number (int): How many are known. Defaults to 8.

    Returns:
        Callable: Of the same arguments.
    """
    known: dict[tuple, object] = {}

    @functools.wraps(lay_out)
    def run(text: str, **settings):
        key = (text, repr(sorted(settings.items())))
        if key not in known:
            result = lay_out(text, **settings)
            while len(known) >= number:
                known.pop(next(iter(known)))
            known[key] = result
        return known[key]

    return run


def remember_layouts() -> None:
    """Let MMEngine lay out a config once a run.

    yapf takes 0.2 s for one, and MMEngine asks for it four times at the start
    of a training and again for every checkpoint.
    """
    if hasattr(mmengine.config.config, 'FormatCode'):
        mmengine.config.config.FormatCode = remembered(mmengine.config.config.FormatCode)

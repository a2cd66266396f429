"""Bounds on what a file may ask for, which an environment variable raises."""

from __future__ import annotations

import os

from mmlt.errors import InputError

# Name of the environment variable: what it bounds unless it is set.
_DEFAULTS = {
    'MMLT_MAX_COLUMNS': 100_000,  # of a table
    'MMLT_MAX_PICTURE_PIXELS': 178_956_970,  # half a gigabyte in RGB; Pillow's own bound
    'MMLT_MAX_PICTURE_RATIO': 1_000,  # longer over shorter side: resizing by the shorter one makes the longer one huge
}


def bound(name: str) -> int:
    """A bound, from the environment variable of its name where that is set.

    Args:
        name (str): ``MMLT_MAX_COLUMNS``, ``MMLT_MAX_PICTURE_PIXELS`` or
            ``MMLT_MAX_PICTURE_RATIO``.

    Returns:
        int: At least 1.

    Raises:
        InputError: The variable is set to something else than such a number.
    """
    text = os.environ.get(name, '').strip()
    if not text:
        return _DEFAULTS[name]
    if not (text.isascii() and text.isdecimal() and len(text) < 19 and int(text)):
        raise InputError(f"The environment variable {name} is '{text[:40]}': set it to a whole number from 1 on.")
    return int(text)

"""Weights that were fetched are what their publisher has."""

from __future__ import annotations

import os
import re

from mmlt.errors import InputError
from mmlt.utils import digest


def check_download(path: str) -> str:
    """Compare a file in the cache of Hugging Face's hub with its SHA-256, after which the cache names large files.

    What open_clip fetches from other addresses it compares itself, where they hold a hash (OpenAI's and its own).

    Args:
        path (str): A file as the hub's client gives it, or any other, which
            is not looked at.

    Returns:
        str: The same.

    Raises:
        InputError: It has another hash: it is damaged, or was changed.
    """
    stored = os.path.realpath(path)
    expected = os.path.basename(stored)
    if os.path.basename(os.path.dirname(stored)) == 'blobs' and re.fullmatch('[0-9a-f]{64}', expected):
        with open(stored, 'rb') as f:
            found = digest(iter(lambda: f.read(1 << 20), b''), size=32, kind='sha256')
        if found != expected:
            raise InputError(
                f"The download '{path}' is damaged: its SHA-256 is {found[:12]}..., but the hub has "
                f"{expected[:12]}... . Remove '{stored}' and start again, which fetches it anew."
            )
    return path

"""Python's garbage collector, where others call it again and again."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def quick_collections() -> Iterator[None]:
    """A context in which ``gc.collect()`` looks at new objects only.

    Each of MMEngine's datasets collects garbage, among all that was imported,
    which takes 0.2 s. Inside itself, or where others froze objects before, it
    changes nothing.
    """
    if gc.get_freeze_count():
        yield
        return
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()

"""How far long work is."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator, Sized
from typing import TypeVar, cast

from mmengine.dist import is_main_process
from mmengine.logging import print_log
from tqdm import tqdm

T = TypeVar('T')
_EVERY = 30.0  # seconds between lines of a log


def show_progress(items: Iterable[T], description: str) -> Iterable[T]:
    """Go through items, and show in the main process how far.

    In a terminal that is a bar. Elsewhere every state of a bar would stay in
    the file, so that even short work leaves two, that of its start and that of
    its end: there, work of more than half a minute leaves a line in the log
    every half minute, and one at its end.

    Args:
        items (Iterable): What is gone through, of a known length.
        description (str): Before the bar, and in the lines.

    Returns:
        Iterable: The items.
    """
    if not is_main_process():
        return items
    if sys.stderr.isatty():
        return tqdm(items, desc=description, mininterval=1)
    return _logged(items, description)


def _logged(items: Iterable[T], description: str) -> Iterator[T]:
    total = len(cast(Sized, items))
    began = said = time.monotonic()
    for done, item in enumerate(items):
        now = time.monotonic()
        if now - said >= _EVERY:
            said = now
            print_log(f'{description}: {done} of {total}, {now - began:.0f} s', logger='current')
        yield item
    if said > began or time.monotonic() - began >= _EVERY:
        print_log(f'{description}: all {total}, {time.monotonic() - began:.0f} s', logger='current')

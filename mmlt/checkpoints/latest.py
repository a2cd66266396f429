"""The checkpoint that an interrupted training goes on from: the newest that is whole."""

from __future__ import annotations

import glob
import os.path as osp
import re

from mmengine.logging import print_log
from mmengine.runner import find_latest_checkpoint

from mmlt.checkpoints.read import DamagedError, read_checkpoint
from mmlt.errors import InputError


def latest_whole_checkpoint(work_dir: str) -> str | None:
    """Path of the newest checkpoint of a work directory that a training can go on from.

    One that was cut off, when the disk was full or the machine went down, is
    passed over with a line that says so.

    Args:
        work_dir (str): The directory.

    Returns:
        str | None: None where there is no checkpoint.

    Raises:
        InputError: None of them is whole; one holds what could run code.
    """
    newest = newest_checkpoint(work_dir)
    if newest is None:
        return None
    problem = _problem(newest)
    if problem is None:
        return newest
    for path in _earlier(work_dir, newest):
        if _problem(path) is None and _goes_on(path):
            print_log(f'{problem} The training goes on from the one before it, {path}.', 'current', 30)
            return path
    raise InputError(
        f"{problem} There is no other one in '{work_dir}' to go on from: begin anew, by tools/train.py with --restart "
        'or in another work directory.'
    )


def newest_checkpoint(work_dir: str) -> str | None:
    """Path of the newest checkpoint, as the file ``last_checkpoint`` has it; whole or not.

    Args:
        work_dir (str): The directory; it may have been moved since.
    """
    if not osp.isfile(osp.join(work_dir, 'last_checkpoint')):
        return None
    named = (find_latest_checkpoint(work_dir) or '').strip()
    here = osp.join(work_dir, osp.basename(named))
    if not osp.exists(named) and osp.isfile(here):
        return here
    return named or next(iter(_earlier(work_dir, '')), None)


def _problem(path: str) -> str | None:
    """What keeps a checkpoint from being read, a sentence; its tensors stay in the file."""
    if not osp.isfile(path):
        return f"The newest checkpoint, '{path}', is gone."
    try:
        read_checkpoint(path, 'cpu', mmap=True)
    except DamagedError:
        return f"The newest checkpoint, '{path}', is damaged, perhaps cut off."
    return None


def _goes_on(path: str) -> bool:
    """Whether a checkpoint has a training's state, and not weights alone."""
    content = read_checkpoint(path, 'cpu', mmap=True)
    return isinstance(content, dict) and 'message_hub' in content and 'iter' in (content.get('meta') or {})


def _earlier(work_dir: str, newest: str) -> list[str]:
    """The other checkpoints of a training, the newest first; not those that are the best by validation."""
    paths = glob.glob(osp.join(glob.escape(work_dir), '*.pth'))
    paths = [p for p in paths if osp.basename(p) != osp.basename(newest) and not osp.basename(p).startswith('best_')]

    def age(path: str):
        numbers = re.findall(r'\d+', osp.basename(path))
        return int(numbers[-1]) if numbers else -1, osp.getmtime(path)

    return sorted(paths, key=age, reverse=True)

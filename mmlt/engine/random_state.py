"""Random numbers that go on after a resume where they were."""

from __future__ import annotations

import random

import numpy as np
import torch
from mmengine.dist import all_gather_object, get_rank, get_world_size


def random_state(gpu: bool = False) -> dict:
    """State of the generators of this process, in plain values and tensors.

    Args:
        gpu (bool): Whether that of this process's GPU is asked for, which
            waits for it. Defaults to False.

    Returns:
        dict: Of Python, numpy and torch.
    """
    name, keys, *rest = np.random.get_state()
    state = dict(
        python=random.getstate(),
        numpy=(name, torch.from_numpy(keys.astype(np.int64)), *rest),  # type: ignore[attr-defined]
        torch=torch.get_rng_state(),
    )
    if gpu and torch.cuda.is_available():
        state['cuda'] = torch.cuda.get_rng_state()
    return state


def restore_random_state(state: dict) -> None:
    """Put the generators of this process where they were.

    Args:
        state (dict): Of :func:`random_state`.
    """
    version, numbers, gauss = state['python']
    random.setstate((version, tuple(numbers), gauss))
    name, keys, *rest = state['numpy']
    np.random.set_state((name, keys.cpu().numpy().astype(np.uint32), *rest))
    torch.set_rng_state(state['torch'].cpu())
    if 'cuda' in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state['cuda'].cpu())


def random_states() -> list[dict]:
    """:func:`random_state` of every process, in the order of ranks; all processes call it."""
    return all_gather_object(random_state(gpu=True))


def restore_of_rank(states: list[dict] | None) -> bool:
    """Put the generators of this process where they were, if there were as many processes.

    Args:
        states (list[dict], optional): Of :func:`random_states`, None where a
            checkpoint has none.

    Returns:
        bool: Whether it was done.
    """
    if not states or len(states) != get_world_size():
        return False
    restore_random_state(states[get_rank()])
    return True

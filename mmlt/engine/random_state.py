"""The state of all random numbers of a training, as tensors that a checkpoint can hold."""

from __future__ import annotations

import math
import random

import numpy as np
import torch
from mmengine.dist import all_gather, get_rank, get_world_size
from torch import Tensor


def random_state() -> dict[str, Tensor]:
    """States of Python's, numpy's and torch's generators in this process.

    Returns:
        dict[str, Tensor]: Vectors of the same lengths in every process.
    """
    _, numbers, gauss = random.getstate()
    _, words, place, has_gauss, cached = np.random.get_state()
    state = dict(
        python=torch.tensor(numbers, dtype=torch.int64),
        numpy=torch.tensor([*words.tolist(), place, has_gauss], dtype=torch.int64),
        gauss=torch.tensor([math.nan if gauss is None else gauss, cached], dtype=torch.float64),
        torch=torch.get_rng_state(),
    )
    if torch.cuda.is_available():
        state['cuda'] = torch.cuda.get_rng_state()
    return state


def gathered_random_state() -> dict[str, Tensor]:
    """:func:`random_state` of all processes, which all have to call it.

    Returns:
        dict[str, Tensor]: Shape (processes, length) each.
    """
    return {name: torch.stack([part.cpu() for part in all_gather(value)]) for name, value in random_state().items()}


def restore_random_state(state: dict[str, Tensor]) -> str | None:
    """Set this process's generators.

    Args:
        state (dict[str, Tensor]): Of :func:`gathered_random_state`.

    Returns:
        str | None: What kept them from being set, None if nothing did.
    """
    saved = len(state['torch'])
    if saved != get_world_size():
        return f'it was saved by {saved} process{"" if saved == 1 else "es"}, and here are {get_world_size()}'
    own = {name: value[get_rank()].cpu() for name, value in state.items()}
    gauss, cached = own['gauss'].tolist()
    *words, place, has_gauss = own['numpy'].tolist()
    random.setstate((3, tuple(own['python'].tolist()), None if math.isnan(gauss) else gauss))
    np.random.set_state(('MT19937', np.array(words, dtype=np.uint32), place, has_gauss, cached))
    torch.set_rng_state(own['torch'])
    if 'cuda' in own and torch.cuda.is_available():
        torch.cuda.set_rng_state(own['cuda'])
    return None

"""Weights that :class:`mmlt.MORE` splits, W = W_g + B A, in state dicts."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from mmlt.errors import InputError

_SPLIT_KEY = re.compile(r'((?:.*\.)?)parametrizations\.(\w+)\.(original|0\.A|0\.B)')


def is_split_key(key: str) -> bool:
    """Whether a key of a state dict is that of a split weight (W_g, A or B)."""
    return _SPLIT_KEY.fullmatch(key) is not None


def split_parts(key: str) -> list[str]:
    """Keys of W_g, A and B of the weight that a key of :func:`is_split_key` belongs to."""
    prefix, name, _ = _SPLIT_KEY.fullmatch(key).groups()
    return [f'{prefix}parametrizations.{name}.{part}' for part in ('original', '0.A', '0.B')]


def merge_weight(weight: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """``W_g + B A`` in the shape of the weight.

    Args:
        weight (Tensor): W_g, (out, in) or (out, in, k, k).
        a (Tensor): (r, in * k * k).
        b (Tensor): (out, r).

    Returns:
        Tensor: Of the weight's shape.
    """
    return torch.addmm(weight.flatten(1), b, a).view_as(weight)


def merge_state_dict(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The plain model's state dict of a split model's.

    Args:
        state (Mapping[str, Tensor]): With W_g, A and B.

    Returns:
        dict[str, Tensor]: With W_g + B A under the plain names; a plain state
        dict as it is.

    Raises:
        InputError: W_g without its low-rank part, or the reverse.
    """
    merged = {}
    for key, value in state.items():
        if not is_split_key(key):
            merged[key] = value
            continue
        parts = split_parts(key)
        if (missing := next((p for p in parts if p not in state), None)) is not None:
            raise InputError(f"The checkpoint has '{key}' but not '{missing}': it is damaged, or not one of MORE.")
        if key == parts[0]:
            prefix, name, _ = _SPLIT_KEY.fullmatch(key).groups()
            merged[f'{prefix}{name}'] = merge_weight(*(state[p] for p in parts))
    return merged


def split_modules(root: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Modules with split weights, and their prefixes in a state dict."""
    for prefix, module in root.named_modules():
        if parametrize.is_parametrized(module) and any(
            hasattr(c[0], 'A') and hasattr(c[0], 'B') for c in module.parametrizations.values()
        ):
            yield f'{prefix}.' if prefix else '', module


def take_plain_weights(module: nn.Module, state: dict, prefix: str, *_) -> None:
    """Give plain weights in a state dict the names of the split ones, with B = 0."""
    if not parametrize.is_parametrized(module):
        return  # merged since
    for name, chain in module.parametrizations.items():  # type: ignore[union-attr, operator]
        plain, ours = f'{prefix}{name}', f'{prefix}parametrizations.{name}.'
        if plain in state and f'{ours}original' not in state:
            state[f'{ours}original'] = state.pop(plain)
            state[f'{ours}0.A'] = chain[0].A.detach()
            state[f'{ours}0.B'] = torch.zeros_like(chain[0].B)


def fit_state_dict(root: nn.Module, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state dict under the names that loading it into this model uses.

    Args:
        root (nn.Module): With or without split weights.
        state (Mapping[str, Tensor]): Of a plain or a split model.

    Returns:
        dict[str, Tensor]: Plain weights that the model has split stand as
        W_g, with A as it is and B = 0. The rest is as it was.
    """
    state = dict(state)
    for prefix, module in split_modules(root):
        take_plain_weights(module, state, prefix)
    return state

"""Weights as a sum of a general and a low-rank part, W = W_g + B A."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from fnmatch import fnmatchcase
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from mmlt.checkpoints.split_state import merge_weight, split_modules, take_plain_weights
from mmlt.checkpoints.weights import fit_state
from mmlt.errors import InputError

# Matrices that attention modules hold themselves; their output projection is a Linear.
_PROJECTIONS = ('in_proj_weight', 'q_proj_weight', 'k_proj_weight', 'v_proj_weight')


def low_rank(rank: float | int, shape: Sequence[int], name: str = 'the weight') -> int:
    """Rank r of the low-rank part of a weight.

    ``r = max(1, round(rank * min(out, in * k * k)))`` for a ratio.

    Args:
        rank (float | int): A ratio in (0, 1], given as a float, or the rank
            itself, given as an integer.
        shape (Sequence[int]): Of the weight: (out, in) or (out, in, k, k), of
            a grouped convolution (out, in / groups, k, k).
        name (str): What to name in an error. Defaults to 'the weight'.

    Returns:
        int: At least 1, at most ``min(out, in * k * k)``.

    Raises:
        InputError: No such ratio; a rank larger than the matrix.
    """
    full = min(shape[0], math.prod(shape[1:]))
    if isinstance(rank, float):
        if not 0 < rank <= 1:
            raise InputError(f'The low-rank ratio is {rank}; give one in (0, 1], or a rank as an integer.')
        return max(1, round(rank * full))
    if isinstance(rank, bool) or not isinstance(rank, int) or rank < 1:
        raise InputError(f'The rank is {rank!r}; give a ratio in (0, 1] as a float, or a rank of at least 1.')
    if rank > full:
        raise InputError(
            f"A rank of {rank} is larger than the matrix of '{name}', which has rank {full} at most: give a smaller "
            'rank or a ratio, or leave the weight out by exclude.'
        )
    return rank


class WeightSplit:
    """What the low-rank parts of one model share: which weights are in use now.

    Args:
        names (Sequence[str]): Names of the weights that are split, as in a
            checkpoint of the plain model.
    """

    def __init__(self, names: Sequence[str]):
        self.names = list(names)
        self._general_only = False
        self._cache: dict | None = None

    @contextmanager
    def general_only(self) -> Iterator[None]:
        """Inside, the model uses W_g alone."""
        before, self._general_only = self._general_only, True
        try:
            yield
        finally:
            self._general_only = before

    @contextmanager
    def computed_once(self) -> Iterator[None]:
        """Inside, every W_g + B A is computed at its first use and kept.

        A layer may run several times in a forward pass (a text tower does, for
        groups of texts). Parameters must not change inside.
        """
        before, self._cache = self._cache, {}
        try:
            yield
        finally:
            self._cache = before

    def weight(self, part: LowRank, weight: Tensor) -> Tensor:
        """The weight to be used now."""
        if self._general_only:
            return weight
        if self._cache is None:
            return part.merged(weight)
        key = (id(part), torch.is_grad_enabled())
        if key not in self._cache:
            self._cache[key] = part.merged(weight)
        return self._cache[key]


class LowRank(nn.Module):
    """The low-rank part of one weight, as a parametrization of PyTorch.

    ``A`` starts uniform as in Kaiming's initialisation (and LoRA's), ``B`` at
    zero: training starts at the plain model.

    Args:
        weight (Tensor): The weight, (out, in) or (out, in, k, k).
        rank (int): r.
        split (WeightSplit): Shared by all parts of the model.
        generator (torch.Generator): For A.
    """

    def __init__(self, weight: Tensor, rank: int, split: WeightSplit, generator: torch.Generator):
        super().__init__()
        rows, columns = weight.shape[0], weight[0].numel()
        bound = 1 / math.sqrt(columns)
        a = torch.empty(rank, columns).uniform_(-bound, bound, generator=generator)
        self.A = nn.Parameter(a.to(weight))
        self.B = nn.Parameter(weight.new_zeros(rows, rank))
        self.split = split

    def merged(self, weight: Tensor) -> Tensor:
        """``W_g + B A``, also under autocast in the weight's own precision."""
        with torch.autocast(weight.device.type, enabled=False):
            return merge_weight(weight, self.A, self.B)

    def forward(self, weight: Tensor) -> Tensor:
        """The weight that the module sees."""
        return self.split.weight(self, weight)


def _matrices(root: nn.Module) -> Iterator[tuple[str, nn.Module, str]]:
    """Name, module and attribute of every weight that can be split."""
    for prefix, module in root.named_modules():
        names = [n for n in _PROJECTIONS if module._parameters.get(n) is not None]
        if isinstance(module, (nn.Linear, nn.Conv2d)):
            names.append('weight')
        for name in names:
            yield f'{prefix}.{name}'.lstrip('.'), module, name


def _patterns(patterns: str | Iterable[str]) -> tuple[str, ...]:
    return (patterns,) if isinstance(patterns, str) else tuple(patterns)


def _any_match(name: str, patterns: Iterable[str]) -> bool:
    return any(fnmatchcase(name, p) for p in patterns)


def _check_patterns(patterns: Sequence[str], found: list[tuple]) -> None:
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name, *_ in found):
            examples = ', '.join(f"'{name}'" for name, *_ in (found[:1] + found[1:][-2:])) or 'none'
            raise InputError(
                f"The pattern '{pattern}' matches no weight of a Linear, Conv2d or attention layer; there are "
                f'{len(found)}, for example {examples}.'
            )


def split_weights(
    root: nn.Module,
    layers: str | Sequence[str] = '*',
    exclude: str | Sequence[str] = (),
    rank: float | int = 0.1,
) -> WeightSplit:
    """Split weights of a model in place: W becomes W_g + B A.

    The weights of Linear and Conv2d layers and the projections of attention
    modules can be split. A convolution's is taken as the matrix
    (out, in * k * k), a grouped one's as (out, in / groups * k * k), the form
    in which it is stored; the sum is exact in both. Frozen weights
    (``requires_grad=False``) stay as they are.

    Afterwards ``module.weight`` is W_g + B A wherever it is read, the
    checkpoint has ``<module>.parametrizations.weight.original`` (W_g),
    ``.0.A`` and ``.0.B`` in place of ``<module>.weight``, and checkpoints of
    the plain model load: W_g is the plain weight and B becomes zero.

    A is drawn from a generator of its own, seeded by the run's seed, so the
    other weights get the values that they have without the split.

    Args:
        root (nn.Module): The model, not yet wrapped for DDP.
        layers (str | Sequence[str]): Patterns (``*`` and ``?``) of the names
            of weights as in a checkpoint, ``'backbone.*'`` or
            ``'*.in_proj_weight'``. Defaults to '*', all.
        exclude (str | Sequence[str]): Patterns of names to leave out.
            Defaults to ().
        rank (float | int): See :func:`low_rank`. Defaults to 0.1.

    Returns:
        WeightSplit: Switches between the weights.

    Raises:
        InputError: A pattern that matches no weight; a rank larger than the
            matrix; a weight that two layers share or that is parametrized
            already.
    """
    layers, exclude = _patterns(layers), _patterns(exclude)
    found = list(_matrices(root))
    _check_patterns((*layers, *exclude), found)
    chosen = [f for f in found if _any_match(f[0], layers) and not _any_match(f[0], exclude)]
    for name, module, attribute in chosen:
        if parametrize.is_parametrized(module) or attribute not in module._parameters:
            raise InputError(
                f"The weight '{name}' is parametrized already (weight or spectral norm?) and cannot be split: leave "
                'it out by exclude.'
            )
    chosen = [f for f in chosen if f[1]._parameters[f[2]].requires_grad]
    if not chosen:
        raise InputError(
            f'No weight is left to be split: all that match {list(layers)} are frozen, or left out by {list(exclude)}.'
        )
    owners: dict[int, str] = {}
    for name, module, attribute in chosen:
        if (first := owners.setdefault(id(module._parameters[attribute]), name)) != name:
            raise InputError(f"'{first}' and '{name}' are one shared weight and cannot be split: leave both out.")

    split = WeightSplit([name for name, *_ in chosen])
    ranks = [low_rank(rank, module._parameters[attribute].shape, name) for name, module, attribute in chosen]
    generator = torch.Generator().manual_seed((torch.initial_seed() + 1) % 2**63)
    for r, (_, module, attribute) in zip(ranks, chosen):
        part = LowRank(module._parameters[attribute], r, split, generator)
        if not parametrize.is_parametrized(module):
            module._register_load_state_dict_pre_hook(take_plain_weights, with_module=True)
        parametrize.register_parametrization(module, attribute, part)
    root._register_load_state_dict_pre_hook(_refuse_misfits, with_module=True)
    return split


def _refuse_misfits(module: nn.Module, state: dict, prefix: str, *_) -> None:
    """Whoever loads: MMEngine would only log these and go on with random weights."""
    own = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
    fit_state(module, own).require('low rank', 'What is loaded')


@torch.no_grad()
def merge(root: nn.Module) -> None:
    """Make a split model the plain one, in place: W = W_g + B A.

    Parameters, names and forward pass are those of the model before
    :func:`split_weights`.

    Args:
        root (nn.Module): The split model.
    """
    for _, module in list(split_modules(root)):
        chains = cast(Mapping[str, Any], module.parametrizations)
        weights = {name: chain.original for name, chain in chains.items()}
        for name, weight in weights.items():
            weight.copy_(chains[name][0].merged(weight))
        # Not by remove_parametrizations: it takes the property from the class, which a deepcopy of the module shares.
        del module._modules['parametrizations']
        module.__class__ = type(module).__bases__[0]
        for name, weight in weights.items():
            module.register_parameter(name, weight)

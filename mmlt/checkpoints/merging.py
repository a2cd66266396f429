"""One model out of several of the same architecture: sums of their weights.

- Uniform and greedy soups: Wortsman et al. 2022, "Model soups", section 2 and Recipe 1.
- Interpolation with the zero-shot model: Wortsman et al. 2022, "Robust fine-tuning of zero-shot models" (WiSE-FT),
  section 3.
- The recursion of LT-Soups: Aminbeidokhti et al. 2025, see :func:`lt_soups`.

All functions take state dicts by name, for example by file, and leave them as
they are. Sums are made in double precision and rounded once. Statistics of
BatchNorm are averaged as weights are, and :attr:`Merged.averaged_statistics`
names their layers: :func:`mmlt.engine.batch_norm.measure_statistics` measures
them anew on training images.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import reduce

import torch
from torch import Tensor

from mmlt.checkpoints.comparison import checkpoint_classes, first_difference, plain
from mmlt.checkpoints.config_text import read_config_text
from mmlt.checkpoints.publish import plain_config
from mmlt.checkpoints.split_state import merge_state_dict
from mmlt.checkpoints.weights import bare_names, fit_state, not_finite
from mmlt.errors import InputError
from mmlt.utils.classes import check_same_classes

State = Mapping[str, Tensor]

# Settings of a model that say how it is trained or where it begins, and not what it computes.
_OF_THE_TRAINING = frozenset(
    {'batch_augments', 'compile', 'frozen', 'grad_checkpointing', 'init', 'init_cfg', 'loss', 'norm_eval', 'pretrained',
     'train_cfg'}
)  # fmt: skip
# Last parts of names of what a model looks up: a mean of two tables is a table of nothing.
_TABLES = ('anchor_features', 'anchor_scale')


@dataclass
class Merged:
    """A merged state dict.

    Args:
        state (dict[str, Tensor]): Of inputs in several precisions, as half and
            single, in the highest.
        weights (dict[str, float]): What share every input has, of sum 1.
        notes (list[str]): What to tell. Defaults to none.
        averaged_statistics (list[str]): BatchNorm layers whose statistics
            differed, and were averaged. Defaults to none.
    """

    state: dict[str, Tensor]
    weights: dict[str, float]
    notes: list[str] = field(default_factory=list)
    averaged_statistics: list[str] = field(default_factory=list)

    def statistics_note(self) -> list[str]:
        """What to tell of averaged statistics that stay so."""
        number = len(self.averaged_statistics)
        what = 'layer has' if number == 1 else 'layers have'
        return [
            f'{number} {what} BatchNorm statistics that are averaged as weights are, not measured on training images '
            'with the merged weights: --bn-images of mmlt merge, or bn_images of SoupHook, measures them.'
        ] * (number > 0)


@dataclass
class GreedySoup:
    """What :func:`greedy` made.

    Args:
        merged (Merged): The soup.
        score (float): Its score.
        singles (dict[str, float]): Score of every input alone.
        steps (list[tuple[str, float, bool]]): In the order in which they were
            tried: the name, the score with it, and whether it stayed.
    """

    merged: Merged
    score: float
    singles: dict[str, float]
    steps: list[tuple[str, float, bool]]

    @property
    def chosen(self) -> list[str]:
        """Names of what is in the soup, the best first."""
        return [name for name, _, stayed in self.steps if stayed]


def average(states: Mapping[str, State], weights: Sequence[float] | None = None) -> Merged:
    """The weighted mean of state dicts, ``sum_i w_i x_i / sum_i w_i``.

    The order of the inputs makes no difference, but for counters and, where
    the weights are no whole numbers, a last bit now and then. What all inputs
    have alike, and the only input with a weight, come out bit by bit.

    Args:
        states (Mapping[str, State]): By name, of one architecture. Low-rank
            parts of :class:`mmlt.MORE` are merged first.
        weights (Sequence[float], optional): Not negative, one each.
            Defaults to None, the uniform soup.

    Returns:
        Merged: Whole numbers that differ, such as ``num_batches_tracked``, are
        the first input's; a note tells it.

    Raises:
        InputError: Names, shapes or types differ, or tables such as anchors;
            numbers that are not finite; weights that cannot be.
    """
    given = _checked(list(states), weights)
    plain = {name: merge_state_dict(bare_names(state)) for name, state in states.items()}
    _check_states(plain)
    used = [(weight, plain[name]) for name, weight in given.items() if weight]
    first = next(iter(plain.values()))
    merged = {}
    with torch.no_grad():
        for key, value in first.items():
            if value.is_floating_point() or value.is_complex():
                merged[key] = _mean([(weight, state[key]) for weight, state in used])
            else:
                merged[key] = (used[0][1] if len(used) == 1 else first)[key].clone()
    total = math.fsum(given.values())
    shares = {name: weight / total for name, weight in given.items()}
    if len(used) == 1:
        return Merged(merged, shares)
    return Merged(merged, shares, _notes(plain), averaged_statistics(plain))


def interpolate(a: State, b: State, alpha: float, names: tuple[str, str] = ('the first', 'the second')) -> Merged:
    """``(1 - alpha) a + alpha b``; WiSE-FT (section 3) with a the zero-shot and b the fine-tuned model.

    Args:
        a (State): What alpha = 0 gives, bit by bit.
        b (State): What alpha = 1 gives, bit by bit.
        alpha (float): From 0 to 1.
        names (tuple[str, str]): Of both, for sentences.

    Returns:
        Merged: See :func:`average`.

    Raises:
        InputError: See :func:`average`; an alpha outside.
    """
    if not 0 <= alpha <= 1:  # NaN too
        raise InputError(f'alpha is {alpha}; give a number from 0 to 1.')
    return average({names[0]: a, names[1]: b}, [1 - alpha, alpha])


def greedy(states: Mapping[str, State], score: Callable[[dict[str, Tensor]], float]) -> GreedySoup:
    """The greedy soup (Wortsman et al. 2022, Recipe 1).

    All inputs are scored alone and sorted, the best first; each is added to
    the uniform soup of those that stayed, and stays if the score with it is
    not lower. So the soup is never below the best single one on what scores.

    Args:
        states (Mapping[str, State]): By name, of one architecture.
        score (Callable): Takes a state dict; more is better. It should be a
            figure of a validation set.

    Returns:
        GreedySoup: See there. Of equal ones the earlier comes first.

    Raises:
        InputError: See :func:`average`; a score that is NaN.
    """
    average(states)  # whether they belong together, before the first is scored
    alone = {name: average({name: state}) for name, state in states.items()}
    singles = {name: _number(score(merged.state), name) for name, merged in alone.items()}
    order = sorted(singles, key=lambda name: -singles[name])
    chosen, soup, best = [order[0]], alone[order[0]], singles[order[0]]
    steps = [(order[0], best, True)]
    for name in order[1:]:
        candidate = average({n: states[n] for n in (*chosen, name)})
        found = _number(score(candidate.state), name)
        steps.append((name, found, found >= best))
        if found >= best:
            chosen, soup, best = [*chosen, name], candidate, found
    return GreedySoup(soup, best, singles, steps)


def recursion_weights(sizes: Sequence[int], ratio: float) -> list[float]:
    """The shares that the recursion of :func:`lt_soups` gives, written out.

    Args:
        sizes (Sequence[int]): How many models every subset has, n subsets.
        ratio (float): Share of a new subset, r.

    Returns:
        list[float]: ``(1 - r)^n`` of the anchor, then for each of the K_i
        models of subset i, from 1, ``r (1 - r)^(n - i) / K_i``.

    Raises:
        InputError: No subsets; a ratio outside (0, 1].
    """
    if not sizes or not all(sizes):
        raise InputError('There is nothing to merge: give at least one checkpoint of every subset.')
    if not 0 < ratio <= 1:
        raise InputError(f'ratio is {ratio}; give a number above 0, at most 1.')
    n = len(sizes)
    shares = [(1 - ratio) ** n]
    for i, size in enumerate(sizes, 1):
        shares += [ratio * (1 - ratio) ** (n - i) / size] * size
    return shares


def lt_soups(anchor: State, groups: Sequence[Mapping[str, State]], ratio: float = 0.7) -> Merged:
    """The merging of LT-Soups (Aminbeidokhti et al., NeurIPS 2025, stage 1).

    ``W_0`` is the model before fine-tuning, and ``W_i = (1 - r) W_{i-1} + r
    w_i``, where ``w_i`` is the mean of the models that were fine-tuned on
    subsets of imbalance at most 2^i. The text of the paper beyond its
    introduction was not at hand: the recursion, the mean over the models of a
    subset and r = 0.7 are those of the authors' published code for CIFAR-100-LT
    (github.com/Masseeh/LT-Soups, ``train_soups`` of ``trainer.py``). Its script
    for iNaturalist 2018 (``merge.py``) has the shares the other way round, 0.7
    for ``W_{i-1}``: ``ratio=0.3``.

    Args:
        anchor (State): W_0.
        groups (Sequence[Mapping[str, State]]): The models of every subset by
            name, the most balanced subset first.
        ratio (float): r. Defaults to 0.7.

    Returns:
        Merged: W_n; counters are the anchor's.

    Raises:
        InputError: See :func:`average` and :func:`recursion_weights`.
    """
    shares = recursion_weights([len(group) for group in groups], ratio)
    states = {'the anchor': anchor, **{name: state for group in groups for name, state in group.items()}}
    if len(states) != len(shares):
        raise InputError('Two subsets have models of one name: give every model a name of its own.')
    return average(states, shares)


def check_mergeable(contents: Mapping[str, dict]) -> list[str]:
    """Refuse checkpoints of other classes, or of models that compute something else.

    What a config says of the training only (loss, frozen parts, where the
    weights began) may differ, and so may MORE and CUE.

    Args:
        contents (Mapping[str, dict]): By name, as :func:`read_checkpoint` gives
            them.

    Returns:
        list[str]: What cannot be compared.

    Raises:
        InputError: They differ; names the first difference.
    """
    named = {f"'{name}'": checkpoint_classes(content) for name, content in contents.items()}
    check_same_classes(named, 'Merge models of the same classes in the same order.')
    models, notes = {}, []
    for name, content in contents.items():
        if named[f"'{name}'"] is None:
            notes.append(f"'{name}' carries no class names: whether its classes are in the same order is not compared.")
        meta = content.get('meta')
        text = meta.get('cfg') if isinstance(meta, dict) else None
        if not text:
            notes.append(f"'{name}' carries no config: only names and shapes of its weights are compared.")
            continue
        models[name] = _computed(plain(plain_config(read_config_text(text, f"'{name}'")).get('model')))
    for name in list(models)[1:]:
        first = next(iter(models))
        if (found := first_difference(models[first], models[name], 'model')) is not None:
            raise InputError(
                f"'{name}' is of another model than '{first}': {found}. Sums of their weights mean nothing: merge "
                'models of one architecture.'
            )
    return notes


def _computed(model):
    """A model's settings without those of the training; None is as good as not given."""
    if isinstance(model, dict):
        if str(model.get('type')) in ('mmlt.CUEClassifier', 'CUEClassifier'):  # its zero-shot model is of the training
            model = {k: v for k, v in model.items() if k != 'teacher'} | {'type': 'ImageClassifier'}
        return {k: _computed(v) for k, v in model.items() if k not in _OF_THE_TRAINING and v is not None}
    return [_computed(v) for v in model] if isinstance(model, list) else model


def _checked(names: list[str], weights: Sequence[float] | None) -> dict[str, float]:
    if not names:
        raise InputError('There is nothing to merge: give at least one checkpoint.')
    weights = [1.0] * len(names) if weights is None else list(weights)
    if len(weights) != len(names):
        raise InputError(f'{len(weights)} weights were given for {len(names)} checkpoints: give one each.')
    for name, weight in zip(names, weights):
        if not (math.isfinite(weight) and weight >= 0):
            raise InputError(f"The weight {weight} of '{name}' is not a number from 0 on.")
    if not any(weights):
        raise InputError('All weights are 0: give at least one checkpoint a share.')
    return dict(zip(names, weights))


def _mean(parts: list[tuple[float, Tensor]]) -> Tensor:
    """The weighted mean in double precision; what needs no sum is as it is.

    The sum is divided at the end: that of equal weights is exact then, and its many ties round one way in any order.
    The result has the highest precision of the parts: a half one rounds no other, in whatever order they come.
    """
    first = parts[0][1]
    dtype = reduce(torch.promote_types, (tensor.dtype for _, tensor in parts))
    if all(torch.equal(first.to(dtype), tensor.to(dtype)) for _, tensor in parts[1:]):
        return first.to(dtype, copy=True)
    kind = torch.complex128 if first.is_complex() else torch.float64
    total = torch.zeros(first.shape, dtype=kind, device=first.device)
    for weight, tensor in parts:
        total.add_(tensor.to(kind), alpha=weight)
    return total.div_(math.fsum(weight for weight, _ in parts)).to(dtype)


def _is_counter(tensor: Tensor) -> bool:
    return tensor.dtype == torch.int64 and tensor.dim() == 0


def _check_states(states: Mapping[str, dict[str, Tensor]]) -> None:
    first_name, first = next(iter(states.items()))
    for name, state in states.items():
        if not state:
            raise InputError(f"'{name}' holds no weights.")
        if (key := next((k for k, v in state.items() if not isinstance(v, Tensor)), None)) is not None:
            raise InputError(f"'{key}' of '{name}' is no tensor: the file is no state dict of a model.")
        fit_state(first, state).require(
            'all', name, f"'{first_name}'", 'merge models of one architecture and one class list'
        )
        for key, value in state.items():
            _check_tensor(key, value, first[key], name, first_name)
        if (key := not_finite(state)) is not None:
            raise InputError(f"'{name}' has NaN or infinite numbers in '{key}': its training diverged, leave it out.")


def _check_tensor(key: str, value: Tensor, wanted: Tensor, name: str, first: str) -> None:
    if value.is_floating_point() != wanted.is_floating_point():
        raise InputError(f"'{key}' is {value.dtype} in '{name}' and {wanted.dtype} in '{first}': they are no weights.")
    table = key.rpartition('.')[2] in _TABLES or not (value.is_floating_point() or _is_counter(value))
    if table and not torch.equal(value, wanted):
        raise InputError(
            f"'{key}' of '{name}' is not that of '{first}'. It is looked up, and a mean means nothing: train both "
            'on the same texts and classes.'
        )


def _notes(states: Mapping[str, dict[str, Tensor]]) -> list[str]:
    name, first = next(iter(states.items()))
    counters = [k for k in first if _is_counter(first[k]) and _differs(k, states)]
    if not counters:
        return []
    what = 'counter differs and is' if len(counters) == 1 else 'counters differ and are'
    return [f"{len(counters)} {what} that of '{name}': {', '.join(counters[:3])}."]


def averaged_statistics(states: Mapping[str, State]) -> list[str]:
    """BatchNorm layers whose statistics are not the same in all state dicts.

    Args:
        states (Mapping[str, State]): By name, of one architecture.

    Returns:
        list[str]: Their names, in the order of the first state dict.
    """
    keys = [k for k in next(iter(states.values())) if k.endswith(('.running_mean', '.running_var'))]
    return [*dict.fromkeys(k.rpartition('.')[0] for k in keys if _differs(k, states))]


def _differs(key: str, states: Mapping[str, State]) -> bool:
    first, *others = states.values()
    return any(key in state and not torch.equal(first[key], state[key]) for state in others)


def _number(score: float, name: str) -> float:
    if math.isnan(score):
        raise InputError(f"The score with '{name}' is NaN: the validation has no such figure.")
    return float(score)

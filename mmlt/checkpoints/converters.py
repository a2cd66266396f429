"""Published checkpoints under this project's names.

Every function here takes a state dict and gives a :class:`Renamed`, which says
where each tensor went. A tensor without a place is an error, never a warning.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from mmlt.checkpoints.weights import bare_names, fit_state
from mmlt.errors import InputError
from mmlt.utils.text_tensor import text_to_tensor

# What OpenAI's archives hold beside weights.
_NO_WEIGHTS = ('input_resolution', 'context_length', 'vocab_size')

_TEXT_TOWER = ('transformer.', 'token_embedding.', 'positional_embedding', 'ln_final.', 'text_projection')

# What published checkpoints hold beside the model, and what is not needed.
_BESIDE = {
    'BALLAD': ('epoch', 'best_epoch', 'best_acc', 'centroids', 'state_dict', 'state_dict_best'),
    'VL-LTR stage 1': ('epoch', 'optimizer', 'lr_scheduler', 'scaler', 'args'),
    'VL-LTR stage 2': ('epoch', 'optimizer', 'lr_scheduler', 'scaler', 'args'),
}

OUR_OWN = ('quick_gelu', 'steps', 'class_tokens')  # last parts of names; no weights of a tower


@dataclass
class Renamed:
    """A state dict under new names.

    Args:
        state (dict[str, Tensor]): The tensors by their new names.
        moved (dict[str, tuple[str, int]]): Old prefix or name: the new one,
            and how many tensors.
        notes (list[str]): What was left out or added, and why.
            Defaults to [].
    """

    state: dict[str, Tensor]
    moved: dict[str, tuple[str, int]]
    notes: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        width = max((len(old) for old in self.moved), default=0)
        lines = [f'{old:<{width}}  ->  {new}  ({number})' for old, (new, number) in self.moved.items()]
        return '\n'.join([*lines, *self.notes])


def checkpoint_kind(checkpoint: Mapping) -> str:
    """Whose checkpoint it is, by its keys.

    Args:
        checkpoint (Mapping): As :func:`read_checkpoint` gives it.

    Returns:
        str: 'BALLAD', 'VL-LTR stage 1', 'VL-LTR stage 2', 'mmlt' or 'another'.
    """
    inner = checkpoint.get('state_dict_best') or checkpoint.get('state_dict')
    if isinstance(inner, Mapping) and 'visual_model' in inner:
        return 'BALLAD'
    model = checkpoint.get('model')
    if isinstance(model, Mapping) and any(k.startswith('visual.') for k in model):
        if 'text_embeddings' in model:
            return 'VL-LTR stage 2'
        if 'token_embedding.weight' in model:
            return 'VL-LTR stage 1'
    if isinstance(inner, Mapping) and any(k.startswith(('backbone.', 'head.')) for k in inner):
        return 'mmlt'
    return 'another'


def expect_kind(checkpoint: Mapping, wanted: Sequence[str], source: str) -> str:
    """See :func:`checkpoint_kind`.

    Raises:
        InputError: It is none of those wanted.
    """
    kind = checkpoint_kind(checkpoint)
    if kind in wanted:
        return kind
    tool = {
        'BALLAD': ': convert it with mmlt import ballad',
        'VL-LTR stage 1': ': convert it with mmlt import vlltr',
        'VL-LTR stage 2': ': convert it with mmlt import vlltr',
        'mmlt': ' itself, which needs no conversion',
        'another': f' (its keys: {", ".join(str(k) for k in list(checkpoint)[:5])})',
    }[kind]
    whose = "another project's checkpoint" if kind == 'another' else f'a checkpoint of {kind}'
    raise InputError(f"'{source}' is no checkpoint of {' or '.join(wanted)}; it is {whose}{tool}.")


def not_converted(checkpoint: Mapping, kind: str, taken: str, source: str) -> list[str]:
    """Tell what of a published checkpoint, beside its model, is not converted.

    Args:
        checkpoint (Mapping): The checkpoint.
        kind (str): See :func:`checkpoint_kind`.
        taken (str): The key that is converted.
        source (str): Its name, for errors.

    Returns:
        list[str]: One note, or none.

    Raises:
        InputError: A key that checkpoints of this kind do not have.
    """
    others = [str(k) for k in checkpoint if k != taken]
    if (unknown := next((k for k in others if k not in _BESIDE[kind]), None)) is not None:
        raise InputError(
            f"'{source}' holds '{unknown}' beside '{taken}', for which there is no place: it was not converted. "
            f'A checkpoint of {kind} has no such part.'
        )
    return [f'left out: {", ".join(others)}'] if others else []


def rename(state: Mapping[str, Tensor], rules: Mapping[str, str], source: str) -> Renamed:
    """Rename all tensors of a state dict.

    Args:
        state (Mapping[str, Tensor]): The tensors.
        rules (Mapping[str, str]): Old name or prefix (ending in a dot): the
            new one. The longest that fits holds.
        source (str): Where they are from, for the error.

    Returns:
        Renamed: Floating-point tensors in single precision.

    Raises:
        InputError: A tensor that no rule fits, or a rule that no tensor fits.
    """
    renamed, moved = {}, dict.fromkeys(rules, 0)
    for name, tensor in state.items():
        fits = [r for r in rules if name == r or (r.endswith('.') and name.startswith(r))]
        if not fits:
            raise InputError(f"'{source}' holds '{name}', for which there is no place: it was not converted.")
        rule = max(fits, key=len)
        renamed[rules[rule] + name[len(rule) :]] = tensor.float() if tensor.is_floating_point() else tensor
        moved[rule] += 1
    if (unused := next((rule for rule, number in moved.items() if not number), None)) is not None:
        raise InputError(f"'{source}' has no '{unused}{'*' if unused.endswith('.') else ''}': it is incomplete.")
    return Renamed(renamed, {rule: (rules[rule], number) for rule, number in moved.items()})


def from_ballad(checkpoint: Mapping, source: str) -> Renamed:
    """Weights of a published BALLAD checkpoint for an ``ImageClassifier``.

    Args:
        checkpoint (Mapping): Of phase A, or of phase B with its adapter.
        source (str): Its name, for errors.

    Returns:
        Renamed: ``backbone.visual.*``, ``head.text.clip.*`` and, of phase B,
        ``neck.linear.weight``.

    Raises:
        InputError: See :func:`expect_kind` and :func:`rename`.
    """
    expect_kind(checkpoint, ['BALLAD'], source)
    taken = 'state_dict_best' if checkpoint.get('state_dict_best') else 'state_dict'
    notes = not_converted(checkpoint, 'BALLAD', taken, source)
    best = {part: own for part, own in checkpoint[taken].items() if own is not None}
    if (other := next((part for part, own in best.items() if not isinstance(own, Mapping)), None)) is not None:
        raise InputError(
            f"'{source}' has as '{other}' a {type(best[other]).__name__}, no state dict: it is no checkpoint of "
            'BALLAD as it was published.'
        )
    flat = {f'{part}.{k.removeprefix("module.")}': v for part, own in best.items() for k, v in own.items()}
    rules = {'visual_model.': 'backbone.visual.', 'text_model.': 'head.text.clip.'}
    if best.get('classifier'):
        rules['classifier.weight'] = 'neck.linear.weight'
    renamed = rename(flat, rules, source)
    renamed.state.setdefault('head.text.clip.logit_scale', torch.tensor(math.log(100.0)))
    renamed.notes += ['The logit scale is 100, which the published code has as a constant.', *notes]
    return renamed


def from_vlltr_pretraining(checkpoint: Mapping, source: str) -> Renamed:
    """Weights of a published VL-LTR stage-1 checkpoint for :class:`CVLP`.

    Args:
        checkpoint (Mapping): The checkpoint.
        source (str): Its name, for errors.

    Returns:
        Renamed: ``backbone.visual.*`` and ``head.text.clip.*``.

    Raises:
        InputError: See :func:`expect_kind` and :func:`rename`.
    """
    expect_kind(checkpoint, ['VL-LTR stage 1'], source)
    state = {k: v for k, v in _weights(checkpoint).items() if k not in _NO_WEIGHTS}
    rules = {'visual.': 'backbone.visual.', 'logit_scale': 'head.text.clip.logit_scale'}
    rules.update({name: f'head.text.clip.{name}' for name in _TEXT_TOWER})
    renamed = rename(state, rules, source)
    renamed.notes += not_converted(checkpoint, 'VL-LTR stage 1', 'model', source)
    return renamed


def from_vlltr_recognition(checkpoint: Mapping, source: str, counts: Sequence[int] | None = None) -> Renamed:
    """Weights of a published VL-LTR stage-2 checkpoint for an ``ImageClassifier`` with :class:`LGRHead`.

    Args:
        checkpoint (Mapping): The checkpoint.
        source (str): Its name, for errors.
        counts (Sequence[int], optional): Anchor sentences of every class, C of
            them; the checkpoint does not say. Defaults to None: those whose
            embedding is not zero.

    Returns:
        Renamed: ``backbone.visual.*`` and ``head.*``.

    Raises:
        InputError: See :func:`expect_kind`, :func:`rename` and
            :func:`anchor_counts`.
    """
    expect_kind(checkpoint, ['VL-LTR stage 2'], source)
    state = _weights(checkpoint)
    # The same for all sentences of a class, it cancels in their softmax; the head does without.
    shift = state.pop('text_block.attn.norm1k.bias', None)
    rules = {
        'visual.': 'backbone.visual.',
        'text_block.attn.norm1q.': 'head.norm_query.',
        'text_block.attn.norm1k.weight': 'head.norm_key.weight',
        'text_block.attn.wq.weight': 'head.query.weight',
        'text_block.attn.wk.weight': 'head.key.weight',
        'text_block.visual_fc.0.': 'head.mlp.0.',
        'text_block.visual_fc.2.': 'head.mlp.2.',
        'text_embeddings': 'head.anchor_features',
        'logit_scale': 'head.log_scale',
    }
    renamed = rename(state, rules, source)
    own = renamed.state
    own['head.log_scale'] = own['head.log_scale'].reshape(())
    own['head.anchor_scale'] = own['head.log_scale'].exp()
    own['head.anchor_counts'] = anchor_counts(own['head.anchor_features'], counts, source)
    own['head.anchor_texts'] = text_to_tensor(json.dumps(unknown_sentences(own['head.anchor_counts'].tolist())))
    if shift is not None:
        renamed.notes.append('text_block.attn.norm1k.bias is left out: it cancels in the softmax over the sentences.')
    number, total = int(own['head.anchor_counts'].sum()), own['head.anchor_features'].shape[:2].numel()
    told = 'by the given counts' if counts is not None else 'by their embeddings, which are not zero'
    renamed.notes.append(f'{number} of {total} anchor places hold a sentence, {told}.')
    renamed.notes += not_converted(checkpoint, 'VL-LTR stage 2', 'model', source)
    return renamed


def anchor_counts(features: Tensor, counts: Sequence[int] | None, source: str) -> Tensor:
    """How many of the padded sentence embeddings of every class are real.

    Args:
        features (Tensor): Shape (C, M, D), zero where padded.
        counts (Sequence[int], optional): What is known of it; more than M
            counts as M. None looks for zero rows.
        source (str): Where they are from, for errors.

    Returns:
        Tensor: Shape (C, ).

    Raises:
        InputError: Not one count a class; a class without sentences; an
            embedding beyond the count; a zero embedding before another.
    """
    real = features.abs().sum(-1) > 0
    if counts is None:
        found = real.sum(1)
    elif len(counts) != len(features):
        raise InputError(f"There are sentence counts of {len(counts)} classes, but '{source}' has {len(features)}.")
    else:
        found = torch.tensor(list(counts)).clamp(max=features.shape[1])
    expected = torch.arange(features.shape[1]) < found[:, None]
    if (found < 1).any():
        raise InputError(f"Class {int((found < 1).nonzero()[0])} has no anchor sentence in '{source}'.")
    if (wrong := (expected != real).any(1)).any():
        c = int(wrong.nonzero()[0])
        raise InputError(
            f"Class {c} of '{source}' has sentence embeddings at {int(real[c].sum())} places, which are not the first "
            f'{int(found[c])}: give the right sentence counts.'
        )
    return found


def fill(model: nn.Module, renamed: Renamed, source: str) -> None:
    """Put converted weights into a model, all of them into all of it.

    Args:
        model (nn.Module): The model of this project that they are for.
        renamed (Renamed): The weights. A bias of the adapter or of the LGR
            head's query that the published model lacks becomes zero.
        source (str): Where they are from, for errors.

    Raises:
        InputError: A weight without place in the model, or of another shape; a
            weight of the model that is not there.
    """
    own, state = dict(model.state_dict()), dict(renamed.state)
    for bias in ('neck.linear.bias', 'head.query.bias'):
        if bias in own and bias not in state and bias.replace('bias', 'weight') in state:
            state[bias] = torch.zeros_like(own[bias])
            renamed.notes.append(f'{bias} is zero: the published model has none.')
    # Anchors come in the file's number; what this project computes itself is in no file.
    left: set[str] = {k for k in ('head.anchor_features', 'head.anchor_texts') if k in own and k in state}
    left |= {k for k in own if k not in state and k.rsplit('.', 1)[-1] in OUR_OWN}
    found = fit_state(
        {k: v for k, v in own.items() if k not in left}, {k: v for k, v in state.items() if k not in left}
    )
    found.require('all', source, remedy='give the config of the stage and the backbone that the checkpoint is from')
    features = state.get('head.anchor_features')
    if features is not None and (features.shape[0], features.shape[2]) != own['head.anchor_features'].shape[::2]:
        raise InputError(
            f"'{source}' has anchor sentences of {features.shape[0]} classes, {features.shape[2]} wide; this config's "
            f'head is for {own["head.anchor_features"].shape[0]} and {own["head.anchor_features"].shape[2]}.'
        )
    model.load_state_dict({**own, **state})


def _weights(checkpoint: Mapping) -> dict[str, Tensor]:
    return bare_names(checkpoint['model'])


def unknown_sentences(counts: Sequence[int]) -> list[list[str]]:
    """What stands for sentences whose texts are not known."""
    return [[f'(sentence {m} of class {c}; its text is not known)' for m in range(n)] for c, n in enumerate(counts)]

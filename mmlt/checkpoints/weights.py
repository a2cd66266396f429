"""Weights of a checkpoint, and whether they are those of a model."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

import torch
from mmengine.runner import CheckpointLoader
from torch import Tensor, nn

from mmlt.checkpoints.read import check_is_file
from mmlt.checkpoints.split_state import fit_state_dict, is_split_key, split_parts
from mmlt.errors import InputError
from mmlt.utils import local_part, why_unreadable


def bare_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state dict without the prefix that a wrapper for several processes gives its names."""
    return {k.removeprefix('module.') if isinstance(k, str) else k: v for k, v in state.items()}


def not_finite(state: Mapping[str, Tensor]) -> str | None:
    """Name of the first tensor with a NaN or an infinite number, or None; waits for the device once.

    Args:
        state (Mapping[str, Tensor]): Tensors of one device by name; of those
            that are split over processes, this process's part is looked at.
    """
    floats = {k: local_part(v) for k, v in state.items() if torch.is_tensor(v) and v.is_floating_point()}
    if not floats:
        return None
    finite = torch.stack([v.isfinite().all() for v in floats.values()]).tolist()
    return next((name for name, fine in zip(floats, finite) if not fine), None)


@dataclass(frozen=True)
class Fit:
    """What :func:`fit_state` found.

    Args:
        missing (tuple[str, ...]): Weights of the model that are not there.
        extra (tuple[str, ...]): Weights that the model has no place for.
        misfits (dict[str, tuple]): Weights of another shape: theirs, and the
            model's.
        fitting (int): How many of the model's weights are there in its shapes.
    """

    missing: tuple[str, ...]
    extra: tuple[str, ...]
    misfits: dict[str, tuple]
    fitting: int

    def require(self, purpose: str, source: str, model: str = "this config's model", remedy: str | None = None) -> None:
        """Refuse weights that do not fit well enough.

        Args:
            purpose (str): Each asks for more: 'low rank', that low-rank parts
                of :class:`MORE`, which say nothing alone, have their places;
                'part', that at least one weight fits; 'start', that none has
                another shape; 'use', that none is missing; 'all', that none
                is left over.
            source (str): Where the weights are from, for the message.
            model (str): Whose weights they should be, for the message.
                Defaults to "this config's model".
            remedy (str, optional): What to do. Defaults to None, advice for a
                config of this project.

        Raises:
            InputError: They do not.
        """
        level = _PURPOSES.index(purpose)
        self._require_low_rank(source)
        if self.misfits and level >= _PURPOSES.index('start'):
            name, (own, wanted) = next(iter(self.misfits.items()))
            remedy = remedy or 'it was trained with another backbone, width or class list'
            raise InputError(f"'{source}' has {name} of shape {own}, but {model} has {wanted}: {remedy}.")
        needed = (*self.missing, *self.misfits)
        if needed and not self.fitting and level >= _PURPOSES.index('part'):
            remedy = remedy or 'it is a checkpoint of another method or project'
            first = next(iter((*self.extra, *self.misfits)), 'nothing')
            raise InputError(
                f"'{source}' holds no weight of {model} (its first is '{first}', and the first that is needed "
                f"'{needed[0]}'): {remedy}."
            )
        remedy = remedy or 'give the config that it was trained with'
        if self.missing and level >= _PURPOSES.index('use'):
            number, first = len(self.missing), self.missing[0]
            raise InputError(f"'{source}' lacks {number} weights of {model}, the first is '{first}': {remedy}.")
        if self.extra and level >= _PURPOSES.index('all'):
            number, first = len(self.extra), self.extra[0]
            raise InputError(f"'{source}' has {number} weights more than {model}, the first is '{first}': {remedy}.")

    def _require_low_rank(self, source: str) -> None:
        remedy = 'give the config (layers, exclude, rank) that it was trained with'
        if (key := next(filter(is_split_key, self.extra), None)) is not None:
            raise InputError(
                f"'{source}' is a checkpoint of MORE that is not merged, and this config's model has no low-rank part "
                f"for '{key}': merge it with mmlt publish, or {remedy}."
            )
        if (key := next(filter(is_split_key, self.misfits), None)) is not None:
            own, wanted = self.misfits[key]
            raise InputError(
                f"'{source}' is a checkpoint of MORE with {key} of shape {own}, and this config asks for {wanted}: "
                f'{remedy}.'
            )
        lost = set(self.missing)
        for key in filter(is_split_key, self.missing):
            if (other := next((part for part in split_parts(key) if part not in lost), None)) is not None:
                raise InputError(f"'{source}' has '{other}' but not '{key}': it is damaged, or not one of MORE.")


_PURPOSES = ('low rank', 'part', 'start', 'use', 'all')


def fit_state(model: nn.Module | Mapping[str, Tensor], state: Mapping[str, Tensor]) -> Fit:
    """Compare weights with those of a model.

    Args:
        model (nn.Module | Mapping[str, Tensor]): A module, plain or split by
            :class:`MORE`, whose parameters are compared: buffers may take
            the shape of a file, or be computed. Of a state dict all is
            compared.
        state (Mapping[str, Tensor]): Of a plain or a split model.

    Returns:
        Fit: See there.
    """
    if isinstance(model, nn.Module):
        state = fit_state_dict(model, bare_names(state))
        own: Mapping[str, Tensor] = dict(model.named_parameters())
        places: Collection[str] = {
            n for named in (model.named_parameters, model.named_buffers) for n, _ in named(remove_duplicate=False)
        }
    else:
        own = places = model
    there = [name for name in own if name in state]
    misfits = {n: (tuple(state[n].shape), tuple(own[n].shape)) for n in there if state[n].shape != own[n].shape}
    return Fit(
        missing=tuple(name for name in own if name not in state),
        extra=tuple(name for name in state if name not in places),
        misfits=misfits,
        fitting=len(there) - len(misfits),
    )


def load_state(
    model: nn.Module,
    state: Mapping[str, Tensor],
    source: str,
    purpose: str = 'all',
    of: str = "this config's model",
) -> None:
    """Load weights into the model that they belong to.

    Args:
        model (nn.Module): The model.
        state (Mapping[str, Tensor]): The weights.
        source (str): Where they are from, for the message.
        purpose (str): 'use' or 'all', see :meth:`Fit.require`.
            Defaults to 'all'.
        of (str): The model's name, for the message.
            Defaults to "this config's model".

    Raises:
        InputError: They do not fit; see :meth:`Fit.require`.
    """
    state = bare_names(state)
    found = fit_state(model, state)
    found.require('use', source, of)
    try:
        result = model.load_state_dict(state, strict=False)
    except RuntimeError as e:  # of a buffer, such as class means
        problem = str(e).splitlines()[-1].strip().rstrip('.')
        raise InputError(
            f"'{source}' does not fit {of} ({problem}): it was trained with another backbone, width or class list."
        ) from e
    replace(found, extra=tuple(result.unexpected_keys)).require(purpose, source, of)


def read_state(checkpoint: str) -> tuple[dict, dict[str, Tensor]]:
    """A checkpoint, and the weights in it.

    Args:
        checkpoint (str): A file, or an address.

    Returns:
        tuple[dict, dict[str, Tensor]]: Its content, and its weights.

    Raises:
        InputError: It cannot be read, or holds no weights.
    """
    if '://' not in checkpoint:
        check_is_file(checkpoint)
    try:
        content = CheckpointLoader.load_checkpoint(checkpoint, map_location='cpu', logger='silent')
    except (OSError, KeyError) as e:
        raise InputError(f"The checkpoint '{checkpoint}' cannot be read: {why_unreadable(e, checkpoint)}.") from e
    state = content.get('state_dict', content) if isinstance(content, dict) else None
    if (
        not state
        or not hasattr(state, 'items')
        or not all(isinstance(k, str) and isinstance(v, Tensor) for k, v in state.items())
    ):
        raise InputError(
            f"'{checkpoint}' holds no state dict of this project's kind: a published checkpoint is converted first, "
            'see mmlt import --help.'
        )
    return content, bare_names(state)


def load_weights(model: nn.Module, checkpoint: str | os.PathLike) -> dict:
    """Load a checkpoint into the model that it belongs to, all of it into all of it.

    Args:
        model (nn.Module): The model.
        checkpoint (str | os.PathLike): A file, or an address.

    Returns:
        dict: What the checkpoint says of itself, its ``meta``.

    Raises:
        InputError: It cannot be read, belongs to another model, or is of a
            training that diverged.
    """
    checkpoint = os.fspath(checkpoint)
    content, state = read_state(checkpoint)
    if (name := not_finite(state)) is not None:
        raise InputError(
            f"'{checkpoint}' has NaN or infinite numbers in '{name}': its training diverged, or the file is damaged; "
            'give an earlier checkpoint.'
        )
    load_state(model, state, checkpoint)
    return content.get('meta') or {}

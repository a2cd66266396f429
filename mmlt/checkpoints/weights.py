"""Weights of a checkpoint, and whether they are those of a model."""

from __future__ import annotations

import os
import os.path as osp
from collections.abc import Mapping

import torch
from mmengine.runner import CheckpointLoader
from torch import Tensor, nn

from mmlt.checkpoints.split_state import fit_state_dict, misfit
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


def check_fits(model: nn.Module, state: Mapping[str, Tensor], source: str, complete: bool = True) -> None:
    """Refuse weights of another model, where MMEngine logs them and goes on with random ones.

    Args:
        model (nn.Module): Plain, or split by :class:`MORE`.
        state (Mapping[str, Tensor]): Of a plain or a split model.
        source (str): Where it is from, for the message.
        complete (bool): Whether all of the model's weights must be there, as
            for a test; else one at least, as for a start. Defaults to True.

    Raises:
        InputError: Low-rank parts that the model has no place for; a weight of
            another shape; weights missing.
    """
    state = fit_state_dict(model, bare_names(state))
    if (problem := misfit(model, state)) is not None:
        raise InputError(f"'{source}' {problem}")
    own = dict(model.named_parameters())
    for name, parameter in own.items():
        if name in state and state[name].shape != parameter.shape:
            raise InputError(
                f"'{source}' has {name} of shape {tuple(state[name].shape)}, but this config's model has "
                f'{tuple(parameter.shape)}: it was trained with another backbone, width or class list.'
            )
    missing = [name for name in own if name not in state]
    if len(missing) == len(own) and own:
        raise InputError(
            f"'{source}' holds none of this model's weights (its first is '{next(iter(state), 'nothing')}'): it is "
            'a checkpoint of another method or project.'
        )
    if missing and complete:
        raise InputError(
            f"'{source}' lacks {len(missing)} weights of this config's model, the first is '{missing[0]}': give the "
            'config that it was trained with.'
        )


def _read_state(checkpoint: str) -> tuple[dict, dict[str, Tensor]]:
    """A checkpoint, and the weights in it."""
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
            'see tools/model_converters/.'
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
    if '://' not in checkpoint and not osp.isfile(checkpoint):
        raise InputError(
            f"The checkpoint '{checkpoint}' does not exist: give a file, for example the last of a work directory."
        )
    content, state = _read_state(checkpoint)
    check_fits(model, state, checkpoint)
    if (name := not_finite(state)) is not None:
        raise InputError(
            f"'{checkpoint}' has NaN or infinite numbers in '{name}': its training diverged, or the file is damaged; "
            'give an earlier checkpoint.'
        )
    try:
        result = model.load_state_dict(state, strict=False)
    except RuntimeError as e:  # of a buffer, such as class means
        problem = str(e).splitlines()[-1].strip().rstrip('.')
        raise InputError(
            f"'{checkpoint}' does not fit this config's model ({problem}): it was trained with another backbone, width "
            'or class list.'
        ) from e
    if names := result.unexpected_keys:
        raise InputError(
            f"'{checkpoint}' has {len(names)} weights more than this config's model, the first is '{names[0]}': give "
            'the config that it was trained with.'
        )
    return content.get('meta') or {}

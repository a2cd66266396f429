"""Both towers of a checkpoint as files that open_clip reads."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from safetensors.torch import save_file
from torch import Tensor

from mmlt.checkpoints import whole_file, write_text
from mmlt.checkpoints.converters import OUR_OWN, Renamed, rename
from mmlt.checkpoints.split_state import merge_state_dict
from mmlt.checkpoints.weights import bare_names, not_finite
from mmlt.errors import InputError

_NAMES = {'backbone.visual.': 'visual.', 'head.text.clip.': ''}


def to_open_clip(state: Mapping[str, Tensor], source: str, drop: Sequence[str] = ()) -> Renamed:
    """Both towers of one of our checkpoints under open_clip's names.

    Args:
        state (Mapping[str, Tensor]): Of an ``ImageClassifier`` with
            :class:`TextClsHead`, or of a pretraining; low-rank parts of
            :class:`MORE` are merged.
        source (str): Its name, for errors.
        drop (Sequence[str]): Names or prefixes to leave out, for example an
            adapter's. Defaults to ().

    Returns:
        Renamed: As ``open_clip.create_model(...).state_dict()``.

    Raises:
        InputError: A tower is missing, there is more than towers, or a number
            is not finite.
    """
    state = merge_state_dict(bare_names(state))
    state = {k: v for k, v in state.items() if k.rsplit('.', 1)[-1] not in OUR_OWN}
    dropped = [k for k in state if k.startswith(tuple(drop))] if drop else []
    if drop and not dropped:
        raise InputError(f"'{source}' has nothing below {' or '.join(drop)} to leave out.")
    state = {k: v for k, v in state.items() if k not in dropped}
    for tower, prefix in (('an image tower', 'backbone.visual.'), ('a text tower', 'head.text.clip.')):
        if not any(k.startswith(prefix) for k in state):
            raise InputError(f"'{source}' has no {prefix}*: an open_clip model needs {tower}.")
    if any(k.startswith('backbone.adapters.') for k in state):
        raise InputError(
            f"The image tower of '{source}' has adapters, which are no part of an open_clip model: without them the "
            "file would hold the tower as it was before the training. Use the training's checkpoint, and remove "
            'ExportOpenCLIPHook where the config has it.'
        )
    if (other := next((k for k in state if not k.startswith(tuple(_NAMES))), None)) is not None:
        raise InputError(
            f"'{source}' holds '{other}', for which an open_clip model has no place: leave it out with --drop "
            f'{other.split(".")[0]}. if the towers alone are wanted.'
        )
    if (name := not_finite(state)) is not None:
        raise InputError(
            f"The weights '{name}' of '{source}' are NaN or infinite, the training diverged: nothing is exported."
        )
    renamed = rename(state, _NAMES, source)
    renamed.notes += [f'{name} is left out, as asked.' for name in dropped]
    return renamed


def export_open_clip(
    state: Mapping[str, Tensor],
    path: str | os.PathLike,
    source: str,
    drop: Sequence[str] = (),
    config: dict | None = None,
) -> Renamed:
    """Write both towers as a weight file of open_clip.

    Args:
        state (Mapping[str, Tensor]): See :func:`to_open_clip`.
        path (str | PathLike): The ``.safetensors`` file.
        source (str): See :func:`to_open_clip`.
        drop (Sequence[str]): See :func:`to_open_clip`. Defaults to ().
        config (dict, optional): What ``open_clip_config.json`` beside it is to
            hold, which makes the folder a model. Defaults to None, no such
            file.

    Returns:
        Renamed: What went where.

    Raises:
        InputError: See :func:`to_open_clip`; the file cannot be written.
    """
    renamed = to_open_clip(state, source, drop)
    with whole_file(path) as part:
        save_file({k: v.detach().cpu().clone().contiguous() for k, v in renamed.state.items()}, part)
    if config is not None:
        write_text(Path(path).with_name('open_clip_config.json'), json.dumps(config, indent=2))
    return renamed

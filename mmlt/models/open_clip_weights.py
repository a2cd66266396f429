"""Weight files of open_clip, read by our reader, which runs nothing of them."""

from __future__ import annotations

from contextlib import contextmanager

from open_clip import factory
from torch import Tensor

from mmlt.checkpoints import read_weights
from mmlt.errors import InputError


def read_state(path: str, model: str) -> dict[str, Tensor]:
    """The weights in a file by their names.

    Args:
        path (str): Of torch, safetensors or TorchScript.
        model (str): The open_clip model that they are for, for errors.

    Raises:
        InputError: It cannot be read, or holds no weights.
    """
    what = f"weight file '{path}' of open_clip model '{model}'"
    content = read_weights(path, what)
    state = content.get('state_dict', content) if isinstance(content, dict) else None
    if not isinstance(state, dict) or not state:
        raise InputError(f'The {what} holds no weights by their names: give another one.')
    return {key.removeprefix('module.'): value for key, value in state.items()}


@contextmanager
def open_clip_reads(model: str):
    """In this block open_clip, which takes files and not state dicts, reads them by :func:`read_state`.

    Args:
        model (str): See there.
    """
    theirs = factory.load_state_dict
    factory.load_state_dict = lambda path, *args, **kwargs: read_state(str(path), model)
    try:
        yield
    finally:
        factory.load_state_dict = theirs

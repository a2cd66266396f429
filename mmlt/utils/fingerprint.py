"""Short names of contents, to tell whether files belong together."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor


def tensors_fingerprint(tensors: Mapping[str, Tensor]) -> str:
    """A short name of a state dict, which another value anywhere would change.

    Args:
        tensors (Mapping[str, Tensor]): Names and tensors, in any order.

    Returns:
        str: Hexadecimal digits.
    """
    digest = hashlib.blake2b(digest_size=12)
    for name in sorted(tensors):
        digest.update(f'{name} {tuple(tensors[name].shape)} {tensors[name].dtype}\0'.encode())
        digest.update(tensors[name].detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def texts_fingerprint(texts: Sequence[Sequence[str]]) -> str:
    """A short name of a corpus, which another sentence anywhere would change.

    Args:
        texts (Sequence[Sequence[str]]): Sentences of every class.

    Returns:
        str: Hexadecimal digits.
    """
    return hashlib.blake2b(json.dumps([list(t) for t in texts]).encode(), digest_size=12).hexdigest()

"""Texts in files and state dicts that hold tensors."""

from __future__ import annotations

import torch
from torch import Tensor


def text_to_tensor(text: str) -> Tensor:
    """A text as a tensor of its UTF-8 bytes."""
    return torch.frombuffer(bytearray(text.encode()), dtype=torch.uint8)


def tensor_to_text(data: Tensor) -> str:
    """The text of :func:`text_to_tensor`."""
    return data.cpu().numpy().tobytes().decode()

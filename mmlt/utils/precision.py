"""Matrix products that stay exact where faster ones are allowed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


@contextmanager
def exact_matmul(device: torch.device) -> Iterator[None]:
    """Inside, products in single precision on a GPU are not rounded to TF32, and autocast is off.

    Losses subtract numbers that are nearly equal; ten bits are not enough.

    Args:
        device (torch.device): Of the products.
    """
    matmul = torch.backends.cuda.matmul
    before = matmul.allow_tf32
    with torch.autocast(device.type, enabled=False):
        if not before:
            yield
            return
        matmul.allow_tf32 = False
        try:
            yield
        finally:
            matmul.allow_tf32 = before


class _ExactProduct(torch.autograd.Function):
    @staticmethod
    def forward(ctx, a, b):
        ctx.save_for_backward(a, b)
        with exact_matmul(a.device):
            return a @ b.t()

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        a, b = ctx.saved_tensors
        with exact_matmul(a.device):
            return (
                grad @ b if ctx.needs_input_grad[0] else None,
                grad.t() @ a if ctx.needs_input_grad[1] else None,
            )


def exact_product(a: Tensor, b: Tensor) -> Tensor:
    """``a @ b.T``, exact (:func:`exact_matmul`) in the backward pass, too.

    Args:
        a (Tensor): Shape (N, D).
        b (Tensor): Shape (M, D).

    Returns:
        Tensor: Shape (N, M).
    """
    if not torch.is_grad_enabled():  # plain operations, which can be exported
        with exact_matmul(a.device):
            return a @ b.t()
    return _ExactProduct.apply(a, b)

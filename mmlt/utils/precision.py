"""Matrix products that stay exact where faster ones are allowed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


@contextmanager
def exact_matmul(device: torch.device) -> Iterator[None]:
    """Neither autocast nor TF32 (or bfloat16, on CPUs) for the products within.

    Losses subtract numbers that are nearly equal; ten bits are not enough. Both
    are put back as they were. The settings belong to the whole process: a
    backward pass, which runs later, needs its own.

    Args:
        device (torch.device): Of the products.
    """
    with torch.autocast(device.type, enabled=False):
        if not hasattr(torch.backends.cuda.matmul, 'fp32_precision'):  # torch < 2.9
            before = torch.get_float32_matmul_precision()
            torch.set_float32_matmul_precision('highest')
            try:
                yield
            finally:
                torch.set_float32_matmul_precision(before)
            return
        # These, not `allow_tf32`, which can not be read where somebody has set these.
        backends = torch.backends.cuda.matmul, torch.backends.mkldnn.matmul  # type: ignore[attr-defined]
        kept = [backend.fp32_precision for backend in backends]
        for backend in backends:
            backend.fp32_precision = 'ieee'
        try:
            yield
        finally:
            for backend, value in zip(backends, kept):
                backend.fp32_precision = value


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

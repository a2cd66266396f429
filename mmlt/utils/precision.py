"""Matrix products in the precision of what is multiplied."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def exact_matmul(device_type: str) -> Iterator[None]:
    """Neither autocast nor TF32 (or bfloat16, on CPUs) for the products within.

    Both are put back as they were. The settings belong to the whole process: a
    backward pass, which runs later, needs its own.

    Args:
        device_type (str): 'cuda' or 'cpu', for autocast.
    """
    with torch.autocast(device_type, enabled=False):
        if not hasattr(torch.backends.cuda.matmul, 'fp32_precision'):  # torch < 2.9
            before = torch.get_float32_matmul_precision()
            torch.set_float32_matmul_precision('highest')
            try:
                yield
            finally:
                torch.set_float32_matmul_precision(before)
            return
        # These, not `allow_tf32`, which can not be read where somebody has set these.
        backends = torch.backends.cuda.matmul, torch.backends.mkldnn.matmul
        before = [backend.fp32_precision for backend in backends]
        for backend in backends:
            backend.fp32_precision = 'ieee'
        try:
            yield
        finally:
            for backend, value in zip(backends, before):
                backend.fp32_precision = value

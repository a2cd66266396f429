"""In which precision a training runs, on the machine where it runs."""

from __future__ import annotations

import torch
from mmengine.config import Config

from mmlt.engine.identity import PRECISION, type_name
from mmlt.engine.parallel import parallel_settings
from mmlt.errors import InputError

PRECISIONS = ('auto', 'fp32', 'bf16', 'fp16')

_WORDS = {
    'fp32': 'single precision',
    'bf16': 'bfloat16 where that is enough (autocast)',
    'fp16': 'half precision where that is enough (autocast), with loss scaling',
}


def resolve_precision(precision: str) -> str:
    """What ``'auto'`` is on this machine.

    Args:
        precision (str): One of ``PRECISIONS``.

    Returns:
        str: On a GPU 'bf16' where it has it, else 'fp16'; on a CPU 'fp32'.
        Others as they are.

    Raises:
        InputError: No such precision, or one that this machine has not.
    """
    if precision not in PRECISIONS:
        raise InputError(f"precision is '{precision}'; give one of {', '.join(PRECISIONS)}.")
    on_gpu = torch.cuda.is_available()
    if precision == 'auto':
        return 'fp32' if not on_gpu else 'bf16' if torch.cuda.is_bf16_supported(including_emulation=False) else 'fp16'
    if precision == 'fp16' and not on_gpu:
        raise InputError("precision='fp16' needs a GPU: give 'bf16', 'fp32' or 'auto'.")
    return precision


def apply_precision(cfg: Config) -> str | None:
    """Put the optimizer wrapper of a config's ``precision`` into it, in place.

    A wrapper that the config or ``--amp`` asks for by its type wins; on a CPU
    MMEngine's ``AmpOptimWrapper`` becomes :class:`BFloat16OptimWrapper`.

    Args:
        cfg (Config): Of one stage.

    Returns:
        str | None: A line for the log; None where nothing is asked for.

    Raises:
        InputError: See :func:`resolve_precision`.
    """
    wrapper, asked = cfg.get('optim_wrapper'), cfg.get('precision')
    if not wrapper:
        return None
    kind = type_name(wrapper.get('type') or 'OptimWrapper')
    in_parts = parallel_settings(cfg) is not None and wrapper.get('dtype') != 'float16'  # no loss scaling there
    if kind == 'AmpOptimWrapper' and (in_parts or not torch.cuda.is_available()):
        wrapper.type = 'mmlt.BFloat16OptimWrapper'
        for key in ('loss_scale', 'dtype'):
            wrapper.pop(key, None)
        return _line('bf16', '--amp')
    if asked is None or kind not in PRECISION:
        return None
    if kind != 'OptimWrapper':
        return _line('bf16' if kind == 'BFloat16OptimWrapper' else 'fp16', f'optim_wrapper.type={kind}')
    precision = resolve_precision(asked)
    if precision == 'bf16':
        wrapper.type = 'mmlt.BFloat16OptimWrapper'
    elif precision == 'fp16':
        wrapper.update(type='AmpOptimWrapper', dtype='float16')
    return _line(precision, f"precision='{asked}'")


def allow_tf32(precision: str | None) -> None:
    """Let products that stay in single precision be rounded to TF32 on a GPU, where half precision is used anyway.

    Losses, Gram matrices and norms are exact in any case
    (:func:`mmlt.utils.precision.exact_matmul`).

    Args:
        precision (str, optional): A line of :func:`apply_precision`.
    """
    if precision is None or _WORDS['fp32'] in precision or not torch.cuda.is_available():
        return
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True


def _line(precision: str, why: str) -> str:
    return f'The training runs in {_WORDS[precision]} ({why}).'


def fused_optimizer(optimizer: dict) -> dict:
    """An optimizer's config with PyTorch's fused implementation, where there is one for GPUs.

    Args:
        optimizer (dict): Of an optimizer wrapper.

    Returns:
        dict: With ``fused=True``, unless it names an implementation itself.
    """
    kind = getattr(torch.optim, type_name(optimizer), None)
    if not torch.cuda.is_available() or kind not in (torch.optim.AdamW, torch.optim.Adam, torch.optim.SGD):
        return optimizer
    if any(key in optimizer for key in ('fused', 'foreach', 'capturable', 'differentiable')):
        return optimizer
    return {**optimizer, 'fused': True}

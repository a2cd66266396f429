"""torch.compile for towers, block by block, in place."""

from __future__ import annotations

import functools
import logging
import shutil
from collections.abc import Callable

import torch
from mmengine.logging import print_log
from mmengine.utils import digit_version
from open_clip.modified_resnet import ModifiedResNet
from torch import nn

from mmlt.errors import InputError

# Blocks of one kind share their compiled code, of which there is a variant for each mode (training, frozen), precision
# and kind of shape. The limit is torch's 8 otherwise, and whatever comes after it is not compiled.
_VARIANTS = 64

# Where the blocks lie in the towers of open_clip and timm.
_BLOCKS = ('transformer.resblocks', 'trunk.blocks', 'trunk.stages', 'blocks')


def compile_options(value: bool | str | dict) -> dict | None:
    """Read the argument ``compile`` of a tower.

    Args:
        value (bool | str | dict): False, True, ``'auto'`` (on a GPU only), or
            arguments of ``torch.compile``.

    Returns:
        dict | None: Arguments of ``torch.compile``; None of False.

    Raises:
        InputError: Something else.
    """
    if value is False or value is None:
        return None
    if value is True or value == 'auto':
        return {}
    if isinstance(value, dict):
        return dict(value)
    raise InputError(f"compile is {value!r}; give True, False, 'auto' (on a GPU), or arguments of torch.compile.")


def is_due(value: bool | str | dict, device: torch.device) -> bool:
    """Whether a tower with this argument ``compile`` is compiled on a device."""
    return bool(value) and (value != 'auto' or torch.device(device).type == 'cuda')


@functools.cache
def why_not(device_type: str, backend: str = 'inductor') -> str | None:
    """Why nothing can be compiled for a kind of device here, None where it can.

    Args:
        device_type (str): 'cpu' or 'cuda'.
        backend (str): Of torch.compile. Defaults to 'inductor'.

    Returns:
        str | None: The end of a sentence.
    """
    if digit_version(torch.__version__) < digit_version('2.5'):
        return f'torch {torch.__version__} compiles every block anew; 2.5 or newer does not'
    if not torch._dynamo.is_dynamo_supported():
        return 'torch.compile does not support this Python'
    if backend != 'inductor':
        return None
    if device_type == 'cuda':
        from torch.utils._triton import has_triton

        return None if has_triton() else 'Triton is missing (pip install triton), or the GPU is too old for it'
    if not any(shutil.which(name) for name in ('g++', 'clang++', 'c++', 'cl')):
        return 'there is no C++ compiler (g++)'
    return None


def _usable(options: dict, device_type: str, what: str) -> bool:
    reason = why_not(device_type, options.get('backend', 'inductor'))
    if reason is not None:
        print_log(f'{what} is not compiled: {reason}.', logger='current', level=logging.WARNING)
        return False
    config = torch._dynamo.config
    limit = 'recompile_limit' if hasattr(config, 'recompile_limit') else 'cache_size_limit'
    setattr(config, limit, max(getattr(config, limit), _VARIANTS))
    return True


def tower_blocks(visual: nn.Module) -> list[nn.Module]:
    """The repeated parts of an image tower, which hold nearly all of its work.

    Args:
        visual (nn.Module): An image tower of open_clip or timm.

    Returns:
        list[nn.Module]: In order; the tower itself where it is of another
        kind.
    """
    if isinstance(visual, ModifiedResNet):
        return [block for stage in (visual.layer1, visual.layer2, visual.layer3, visual.layer4) for block in stage]
    for path in _BLOCKS:
        try:
            return list(visual.get_submodule(path).children())
        except AttributeError:
            continue
    return [visual]


def compile_tower(visual: nn.Module, options: dict, device: torch.device) -> bool:
    """Compile the blocks of an image tower in place; names of weights and copies of the tower stay as they are.

    Args:
        visual (nn.Module): See :func:`tower_blocks`.
        options (dict): Arguments of ``torch.compile``.
        device (torch.device): Where it runs.

    Returns:
        bool: Whether it was done; if not, one line says why.
    """
    if not _usable(options, torch.device(device).type, 'The image tower'):
        return False
    for block in tower_blocks(visual):
        block.compile(**options)
    return True


@functools.cache
def _compiled(function: Callable, options: tuple) -> Callable:
    return torch.compile(function, **dict(options))


def compile_function(function: Callable, options: dict, device: torch.device, what: str) -> Callable:
    """A compiled form of a function for any number and length of inputs; the function itself where it cannot be.

    Args:
        function (Callable): Of a module and tensors.
        options (dict): Arguments of ``torch.compile``.
        device (torch.device): Where it runs.
        what (str): Its name in the line that says why not.

    Returns:
        Callable: Of the same arguments.
    """
    if not _usable(options, torch.device(device).type, what):
        return function
    return _compiled(function, tuple(sorted({'dynamic': True, **options}.items())))

"""Arrays in files, which run no code and claim what they hold."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from mmlt.errors import InputError


def check_npy(path: str) -> None:
    """Refuse a ``.npy`` file that claims more numbers than it has, before memory is asked for them.

    Args:
        path (str): The file.

    Raises:
        ValueError: It does.
    """
    with open(path, 'rb') as file:
        if file.read(6) != b'\x93NUMPY':
            return  # of another kind, which np.load names
        file.seek(0)
        version = np.lib.format.read_magic(file)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = read(file)
        begin = file.tell()
        claimed, there = math.prod(shape) * dtype.itemsize, file.seek(0, 2) - begin
    if claimed > there:
        raise ValueError(f'its head claims {claimed:,} bytes of numbers, and there are {there:,}: it is cut off')


def read_array(path: str, ndim: int) -> Tensor:
    """Read a ``.npy`` file of floating-point numbers.

    Args:
        path (str): The file.
        ndim (int): How many dimensions it has.

    Returns:
        Tensor: In single precision.

    Raises:
        InputError: It is missing, damaged, holds objects, has other
            dimensions, or a number that is not finite.
    """
    try:
        check_npy(path)
        array = np.load(path, allow_pickle=False)
    except Exception as e:  # numpy reads the head as Python
        raise InputError(f"The array '{path}' could not be read ({type(e).__name__}: {e}).") from e
    if not isinstance(array, np.ndarray) or array.ndim != ndim or array.dtype.kind != 'f':
        what = f'{array.dtype} of shape {array.shape}' if isinstance(array, np.ndarray) else 'several arrays'
        raise InputError(f"'{path}' holds {what}, not floating-point numbers in {ndim} dimensions.")
    tensor = torch.from_numpy(array).float()
    if wrong := int((~tensor.isfinite()).sum()):
        raise InputError(
            f"'{path}' holds {wrong} numbers that are not finite (NaN or infinite): no sentence can be chosen by them, "
            'compute the file again.'
        )
    return tensor

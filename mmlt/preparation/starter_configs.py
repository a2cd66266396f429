"""Ready configs for one's own data: every method at a size that suits it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from string import Template

import numpy as np

from mmlt.errors import InputError
from mmlt.preparation.towers import TowerFacts
from mmlt.utils import digest

# A config a file, with NAME for the data set's name; a further method is a template more.
TEMPLATES = Path(__file__).with_name('templates')

# A default schedule: about so many steps, within these bounds on epochs.
_STEPS, _EPOCHS = 1500, (5, 50)


@dataclass(frozen=True)
class Settings:
    """What starter configs are written for.

    Args:
        name (str): Of the data set, a part of file names.
        num_classes (int): C.
        num_train (int): Training images.
        pictures (str): Folder that the lists' paths are relative to.
        base (str): The folder ``configs/_base_`` of a checkout.
        tower (TowerFacts): Of the model that is trained.
        split_digest (str): Of lists and class names, see
            :func:`split_digest`. Defaults to ''.
        has_val (bool): Whether there is ``val.txt``; otherwise the test split
            is validated on. Defaults to False.
        class_texts (str, optional): See :class:`ClassTexts`. Defaults to None.
        epochs (int, optional): Of every stage. Defaults to None, by the number
            of images.
        batch_size (int): Images a step, at most. Defaults to 64.
        flip (bool): Whether mirrored pictures stay in their class.
            Defaults to True.

    Raises:
        InputError: Fewer than 2 training images; no epoch, or an empty batch.
    """

    name: str
    num_classes: int
    num_train: int
    pictures: str
    base: str
    tower: TowerFacts
    split_digest: str = ''
    has_val: bool = False
    class_texts: str | None = None
    epochs: int | None = None
    batch_size: int = 64
    flip: bool = True

    def __post_init__(self):
        if self.num_train < 2:
            raise InputError(f'There are {self.num_train} training images: at least 2 are needed.')
        for name in ('epochs', 'batch_size'):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise InputError(f'{name} is {getattr(self, name)}; it must be positive.')


def fill_template(template: str, values: Mapping[str, str | None]) -> str:
    r"""Fill in a template.

    Args:
        template (str): With placeholders of :class:`string.Template`. A line
            with one whose value is None is left out.
        values (Mapping[str, str | None]): Values of all placeholders.

    Returns:
        str: The text.

    Examples:
        >>> fill_template('a = $a\nb = $b\nc = $c  # $a\n', dict(a='1', b=None, c="'$b'"))
        "a = 1\nc = '$b'  # 1\n"
    """
    lines = template.splitlines(keepends=True)
    kept = [line for line in lines if all(values[name] is not None for name in re.findall(r'\$\{?(\w+)', line))]
    return Template(''.join(kept)).substitute(values)


def template_values(settings: Settings, command: str) -> dict[str, str | None]:
    """What the placeholders of all templates stand for.

    Args:
        settings (Settings): What the configs are written for.
        command (str): How they were asked for.

    Returns:
        dict[str, str | None]: Python code. Those named ``if_...`` are empty,
        or None where their line is left out.
    """
    return {
        'name': settings.name,
        # It stands in quotation marks: repr chooses single ones where there are double ones in a text.
        'base': repr(settings.base + '"')[1:-2],
        'command': '\n# '.join(command.splitlines()),
        'pictures': repr(settings.pictures),
        'class_texts': repr(settings.class_texts),
        'num_classes': repr(settings.num_classes),
        'split_digest': repr(settings.split_digest),
        'val': 'val' if settings.has_val else 'test',
        'if_flip': '' if settings.flip else None,
        **_schedule_values(settings),
        **_tower_values(settings.tower),
    }


def _schedule_values(settings: Settings) -> dict[str, str]:
    # Incomplete batches are dropped, so a batch must not be larger than the data.
    batch_size, epochs = min(settings.batch_size, settings.num_train), settings.epochs
    if epochs is None:
        epochs = int(np.clip(round(_STEPS / (settings.num_train // batch_size)), *_EPOCHS))
    short = min(10, epochs)
    values = dict(
        batch_size=batch_size,
        epochs=epochs,
        interval=max(1, epochs // 5),
        short_epochs=short,
        short_interval=max(1, short // 5),
        views=short,  # a frozen image tower sees each image in so many random views, once
    )
    return {key: str(value) for key, value in values.items()}


def _tower_values(tower: TowerFacts) -> dict[str, str | None]:
    both = dict(model=tower.model, quick_gelu=tower.quick_gelu)
    sized = both if tower.image_size is None else dict(both, image_size=tower.image_size)
    # Small batches ask for BatchNorm's statistics as they were pretrained.
    image = dict(sized, norm_eval=True) if tower.batch_norm and not tower.scratch else sized
    return {
        'both': _arguments(both),
        'sized': _arguments(sized),
        'tower': _arguments(image),
        'pretrained': repr(tower.pretrained),
        'pixels': str(tower.pixels),
        'enlarged': str(round(tower.pixels * 248 / 224)),
        'embed_dim': str(tower.embed_dim),
        'width': str(tower.width or tower.embed_dim),
        'mean_std': _arguments(tower.mean_std) or None,
        'if_pretrained': None if tower.scratch else '',
        'if_scratch': '' if tower.scratch else None,
        'if_no_projection': '' if tower.width is None else None,
    }


def _arguments(values: dict) -> str:
    return ', '.join(f'{key}={value!r}' for key, value in values.items())


def left_out(tower: TowerFacts) -> dict[str, str]:
    """Methods that have no config for a tower, and why in a sentence, which may be that of several."""
    if tower.scratch:
        why = 'No configs for LIFT and zero-shot: they need pretrained weights, see --pretrained.'
        return dict(lift=why, zeroshot=why)
    if not tower.transformer:
        return dict(lift=f"No config for LIFT: its adapters need a Vision Transformer, and '{tower.model}' has none.")
    return {}


def split_digest(lists: dict[str, str]) -> str:
    """A short name of a split, which another picture, label or class name in it would change.

    Args:
        lists (dict[str, str]): File names and texts; nothing in them depends
            on the machine.

    Returns:
        str: Hexadecimal digits.
    """
    return digest(repr(sorted(lists.items())), size=8, kind='sha256')


def written_digest(folder: Path) -> str | None:
    """:func:`split_digest` of the lists that are in a folder now; None where there are none."""
    names = ('train.txt', 'val.txt', 'test.txt', 'classes.txt')
    lists = {name: (folder / name).read_text('utf-8', 'replace') for name in names if (folder / name).is_file()}
    return split_digest(lists) if 'train.txt' in lists else None


def _files(name: str) -> dict[str, Path]:
    """Templates by the names of the configs, that of the data first."""
    paths = sorted(TEMPLATES.glob('*.py.in'), key=lambda path: (not path.name.startswith('dataset'), path.name))
    return {path.name.removesuffix('.in').replace('NAME', name): path for path in paths}


def earlier_configs(folder: Path, name: str) -> list[Path]:
    """Configs that were written into a folder for a data set of this name; others on the same data stay.

    Args:
        folder (Path): It may not exist.
        name (str): Of the data set.

    Returns:
        list[Path]: ``dataset_<name>.py``, and configs of methods that inherit
        from it.
    """
    data = f'dataset_{name}.py'
    found = [folder / file for file in _files(name) if (folder / file).is_file()]
    return [p for p in found if p.name == data or f"'./{data}'" in p.read_text('utf-8', 'replace')]


def starter_configs(settings: Settings, command: str) -> dict[str, str]:
    """All configs for a data set.

    Args:
        settings (Settings): What they are written for.
        command (str): How they were asked for, noted in the data config.

    Returns:
        dict[str, str]: File names and texts; ``dataset_<name>.py``, and the
        configs of every method that :func:`left_out` does not name.
    """
    values, without = template_values(settings, command), left_out(settings.tower)
    return {
        file: fill_template(path.read_text(encoding='utf-8'), values)
        for file, path in _files(settings.name).items()
        if path.name.split('_')[0] not in without
    }

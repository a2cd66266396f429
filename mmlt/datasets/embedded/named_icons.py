"""Icons of fonts with captions made of their names: what a tiny CLIP is pretrained on."""

from __future__ import annotations

import colorsys
import json
from collections import Counter
from functools import cache, lru_cache
from pathlib import Path

import cv2
import numpy as np
from mmpretrain.datasets import BaseDataset
from PIL import Image, ImageDraw, ImageFont

from mmlt.datasets.embedded.twemoji_lt import package_folder
from mmlt.errors import InputError
from mmlt.registry import DATASETS

# Fonts of the package qtawesome, and the words of their icons' names that tell a style and no thing.
FONT_STYLES = {
    'fontawesome6-regular': ('alt', 'simple'),
    'fontawesome6-solid': ('alt', 'simple'),
    'materialdesignicons6': ('outline', 'variant', 'off'),
    'phosphor': ('bold', 'fill', 'light', 'thin', 'simple'),
    'remixicon': ('fill', 'line', '2', '3', '4', '5', '6'),
}
# Kinds of things, and words that name a thing of the kind.
KIND_FILE = Path(__file__).with_name('icon_kinds.json')
TEMPLATES = ('a picture of the {}', 'a picture of {}', 'an icon of the {}', 'an icon of {}', '{}')
_CANVAS = 64
# A kind of n icons gets n ** (1 - this) shares of the samples.
_BALANCE = 0.8


def icon_name(key: str, styles: tuple[str, ...]) -> str:
    """The thing that an icon shows, from its key in the font.

    Args:
        key (str): For example 'airplane-takeoff-outline'.
        styles (tuple[str]): Words to leave out, unless nothing else is left.

    Returns:
        str: For example 'airplane takeoff'.
    """
    words = key.replace('_', '-').lower().split('-')
    return ' '.join([w for w in words if w not in styles] or words)


def icon_kind(name: str, kinds: dict[str, str]) -> str | None:
    """The kind of an icon by the first word of its name that one knows, or None.

    Args:
        name (str): For example 'dog side'.
        kinds (dict[str, str]): Kind of every known word.

    Returns:
        str | None: For example 'animal'.
    """
    return next((kinds[word] for word in name.split() if word in kinds), None)


@lru_cache(maxsize=1)
def icon_table() -> list[dict]:
    """All icons: ``name``, ``kind`` (or None), ``font`` (a file) and ``code`` (the code point).

    Raises:
        InputError: qtawesome is not installed, or lacks a font.
    """
    folder = package_folder('qtawesome', 'NamedIcons') / 'fonts'
    kinds = {w: kind for kind, words in json.loads(KIND_FILE.read_text()).items() for w in words.split()}
    icons = []
    for font, styles in FONT_STYLES.items():
        files = [sorted(folder.glob(f'{font}-{pattern}')) for pattern in ('*.ttf', '*charmap*.json')]
        if not all(files):
            raise InputError(
                f"NamedIcons: '{folder}' has no font '{font}'; pip install 'mmlt[demo]' installs a version that has."
            )
        for key, code in json.loads(files[1][0].read_text(encoding='utf-8')).items():
            # Logos, and strokes too faint at 32 pixels.
            if 'logo' in key.split('-') or key.endswith(('-thin', '-light')):
                continue
            name = icon_name(key, styles)
            icons.append(dict(name=name, kind=icon_kind(name, kinds), font=str(files[0][0]), code=int(code, 16)))
    return icons


@cache
def _face(path: str) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(path, _CANVAS)


@lru_cache(maxsize=16384)
def icon_masks(font: str, code: int) -> tuple[np.ndarray, np.ndarray] | None:
    """Strokes of an icon and all that they enclose.

    Args:
        font (str): A TrueType file.
        code (int): Code point.

    Returns:
        tuple | None: Two masks, (64, 64), uint8, the longer side 56 pixels;
        None for a blank.
    """
    canvas = Image.new('L', (2 * _CANVAS, 2 * _CANVAS), 0)
    ImageDraw.Draw(canvas).text((_CANVAS, _CANVAS), chr(code), font=_face(font), fill=255, anchor='mm')
    box = canvas.getbbox()
    if box is None:
        return None
    glyph = canvas.crop(box)
    zoom = (_CANVAS - 8) / max(glyph.size)
    glyph = glyph.resize([max(1, round(side * zoom)) for side in glyph.size], Image.Resampling.BILINEAR)
    drawn = Image.new('L', (_CANVAS, _CANVAS), 0)
    drawn.paste(glyph, ((_CANVAS - glyph.width) // 2, (_CANVAS - glyph.height) // 2))
    strokes = np.array(drawn)
    outside = (strokes > 100).astype(np.uint8)
    cv2.floodFill(outside, None, (0, 0), 2)
    return strokes, np.where(outside == 2, strokes, 255).astype(np.uint8)


def _colour(rng: np.random.Generator, saturation: tuple[float, float], value: tuple[float, float]) -> np.ndarray:
    return 255 * np.array(colorsys.hsv_to_rgb(rng.random(), rng.uniform(*saturation), rng.uniform(*value)))


def render_icon(font: str, code: int, rng: np.random.Generator, size: int = 32) -> np.ndarray:
    """Draw an icon in random colours, a little turned, stretched and moved.

    The background is white or light in most cases; what the strokes enclose
    has a colour of its own in two of three.

    Args:
        font (str): A TrueType file.
        code (int): Code point, not a blank one.
        rng (np.random.Generator): Source of the variations.
        size (int): Pixels a side. Defaults to 32.

    Returns:
        np.ndarray: RGB, shape (size, size, 3), uint8.
    """
    centre = (_CANVAS - 1) / 2
    matrix = cv2.getRotationMatrix2D((centre, centre), rng.normal(0, 8), rng.uniform(0.85, 1.12))
    matrix[:, :2] = matrix[:, :2] * rng.uniform(0.9, 1.1, (2, 1))
    matrix[:, 2] = centre - matrix[:, :2] @ (centre, centre) + rng.normal(0, 2, 2)
    strokes, filled = (
        cv2.warpAffine(mask, matrix, (_CANVAS, _CANVAS), flags=cv2.INTER_LINEAR)[..., None] / np.float32(255)
        for mask in icon_masks(font, code)
    )
    kind = rng.random()
    ground = np.full(3, 255.0) if kind < 0.7 else _colour(rng, (0, 0.25), (0.8, 1)) if kind < 0.9 else None
    if ground is None:
        ground, ink = _colour(rng, (0.2, 1), (0.1, 0.6)), _colour(rng, (0, 0.6), (0.8, 1))
    else:
        ink = _colour(rng, (0.2, 1), (0.05, 0.9))
    image = np.broadcast_to(ground, (_CANVAS, _CANVAS, 3))
    if rng.random() < 2 / 3:
        image = image + filled * (_colour(rng, (0.2, 1), (0.5, 1)) - image)
    image = image + strokes * (ink - image)
    return cv2.resize(image.astype(np.float32), (size, size), interpolation=cv2.INTER_AREA).round().astype(np.uint8)


def _with_article(noun: str) -> str:
    return f'an {noun}' if noun[0] in 'aeiou' else f'a {noun}'


def describe_icon(name: str, kind: str | None, rng: np.random.Generator) -> str:
    """A caption with name, kind or both, such as "a picture of an airplane takeoff, an aircraft"."""
    template = TEMPLATES[rng.integers(len(TEMPLATES))]
    said = rng.integers(3)
    noun = kind if kind and said == 1 else name
    text = template.format(noun if 'the {}' in template else _with_article(noun))
    return f'{text}, {_with_article(kind)}' if kind and said == 2 else text


@DATASETS.register_module()
class NamedIcons(BaseDataset):
    """Icons of four fonts in random colours, with captions made of their names.

    Nothing is downloaded: the fonts come with the package ``qtawesome``, which
    is not imported (it would want Qt), and sample i is drawn from (seed, i).
    No emoji is among the pictures, so what a model trained on them knows of
    Twemoji is zero-shot.

    Captions also tell the kind ("a dog, an animal") where one of the words in
    ``icon_kinds.json`` says it; kinds are named like the classes of
    :class:`TwemojiLT`, as digits are in :class:`PrintedCharacters`. Icons of
    one kind have one label, others that of their name, and rare kinds are
    drawn more often than there are icons of them.

    The fonts: Font Awesome 6 Free (font OFL 1.1, icons CC-BY 4.0; without its
    brands), Material Design Icons 6 and Remix Icon (Apache 2.0), Phosphor
    (MIT). ``img`` is an RGB array, as in :class:`TwemojiLT`.

    Args:
        num_samples (int): Number of pictures. Defaults to 24000.
        seed (int): Defaults to 0.
        image_size (int): Pixels a side. Defaults to 32.
        **kwargs: See MMPretrain's ``BaseDataset``.

    Raises:
        InputError: qtawesome is missing.
    """

    def __init__(self, num_samples: int = 24000, seed: int = 0, image_size: int = 32, **kwargs):
        self.num_samples, self.seed, self.image_size = num_samples, seed, image_size
        kwargs.setdefault('ann_file', '')
        super().__init__(**kwargs)

    def load_data_list(self) -> list[dict]:
        """Choose icon and caption of every sample; pictures are drawn when they are asked for."""
        icons = icon_table()
        kinds = Counter(icon['kind'] for icon in icons)
        weights = np.array([kinds[icon['kind']] ** -_BALANCE for icon in icons])
        things = [icon['kind'] or icon['name'] for icon in icons]
        self._metainfo['classes'] = tuple(sorted(set(things)))
        label_of = {thing: label for label, thing in enumerate(self._metainfo['classes'])}
        rng = np.random.default_rng(self.seed)
        chosen = rng.choice(len(icons), self.num_samples, p=weights / weights.sum())
        return [
            {
                'gt_label': label_of[things[i]],
                'font': icons[i]['font'],
                'code': icons[i]['code'],
                'caption': describe_icon(icons[i]['name'], icons[i]['kind'], rng),
            }
            for i in chosen
        ]

    def get_data_info(self, idx: int) -> dict:
        """Sample ``idx`` with its picture, ``img`` of shape (image_size, image_size, 3)."""
        info = super().get_data_info(idx)
        rng = np.random.default_rng([self.seed, idx])
        info['img'] = render_icon(info['font'], info['code'], rng, self.image_size)
        return info

    def get_gt_labels(self) -> np.ndarray:
        """Labels without drawing the pictures."""
        return np.array([super(NamedIcons, self).get_data_info(i)['gt_label'] for i in range(len(self))])

    def extra_repr(self) -> list[str]:
        """Lines of ``repr``."""
        return [f'Icons: \t{len(icon_table())}']

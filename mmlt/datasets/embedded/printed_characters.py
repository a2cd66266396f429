"""Printed characters with captions: what the tiny CLIP is pretrained on."""

from __future__ import annotations

import math
from functools import lru_cache
from pathlib import Path

import cv2
import matplotlib
import numpy as np
from mmpretrain.datasets import BaseDataset
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from mmlt.datasets.embedded.mnist_lt import DIGITS
from mmlt.registry import DATASETS

CHARACTERS = '0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz'
# Fonts of matplotlib without Latin letters and digits of their own.
_NO_LETTERS = ('Display', 'cmex', 'cmsy', 'Siz', 'LastResort', 'NonUni')
_STYLES = {
    'Bold': 'bold',
    'Oblique': 'oblique',
    'Italic': 'italic',
    'Mono': 'typewriter',
    'Serif': 'serif',
    'Sans': 'sans serif',
}
_TEMPLATES = ('a photo of the {}', 'a photo of a {}', 'a {}', 'an image of a {}', 'a drawing of the {}')


def font_files() -> list[Path]:
    """The text fonts that matplotlib ships."""
    folder = Path(matplotlib.get_data_path()) / 'fonts' / 'ttf'
    return sorted(f for f in folder.glob('*.ttf') if not any(k in f.name for k in _NO_LETTERS))


@lru_cache(maxsize=1024)
def _font(path: str, size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(path, size)


def _warp(image: Image.Image, rng: np.random.Generator, strength: float = 1.6) -> Image.Image:
    """Bend the strokes by a smooth random field, as a hand would, of ``strength`` pixels (standard deviation)."""
    shift = cv2.resize(rng.normal(0, strength, (4, 4, 2)).astype(np.float32), image.size, interpolation=cv2.INTER_CUBIC)
    rows, columns = np.mgrid[: image.height, : image.width].astype(np.float32)
    warped = cv2.remap(np.asarray(image), columns + shift[..., 0], rows + shift[..., 1], cv2.INTER_LINEAR)
    return Image.fromarray(warped)


def render_character(character: str, font: Path, rng: np.random.Generator) -> np.ndarray:
    """Draw a character in white on black, a little rotated, sheared, thickened and blurred.

    Args:
        character (str): One character.
        font (Path): A TrueType file.
        rng (np.random.Generator): Source of the variations.

    Returns:
        np.ndarray: Shape (28, 28), uint8; the glyph fills about 20 pixels, as
        in MNIST.
    """
    face = _font(str(font), int(rng.integers(20, 31)))
    canvas = Image.new('L', (64, 64), 0)
    stroke = int(rng.random() < 0.25)
    ImageDraw.Draw(canvas).text((32, 32), character, font=face, fill=255, anchor='mm', stroke_width=stroke)
    glyph = canvas.crop(canvas.getbbox())
    zoom = rng.uniform(17, 22) / max(glyph.size)
    width = max(2, round(glyph.width * zoom * rng.uniform(0.8, 1.15)))
    glyph = glyph.resize((min(width, 28), max(2, round(glyph.height * zoom))), Image.Resampling.BILINEAR)
    image = Image.new('L', (28, 28), 0)
    image.paste(glyph, ((28 - glyph.width) // 2, (28 - glyph.height) // 2))

    angle, shear = math.radians(rng.normal(0, 10)), rng.normal(0, 0.15)
    a, b, d, e = math.cos(angle), math.sin(angle) + shear, -math.sin(angle), math.cos(angle)
    shift_x, shift_y = rng.normal(0, 1, 2)
    matrix = (a, b, 14 - 14 * (a + b) + shift_x, d, e, 14 - 14 * (d + e) + shift_y)
    image = image.transform((28, 28), Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR)
    image = _warp(image, rng)
    if rng.random() < 0.25:
        image = image.filter(ImageFilter.MaxFilter(3))
    if rng.random() < 0.3:
        image = image.filter(ImageFilter.GaussianBlur(0.6))
    return np.asarray(image)


def describe_character(character: str, font: Path, rng: np.random.Generator) -> str:
    """A caption such as "a photo of the bold digit seven"."""
    if character.isdigit():
        word = DIGITS[int(character)]
        name = rng.choice([f'digit {word}', f'number {word}', f'numeral {character}', word])
    else:
        name = ('capital letter ' if character.isupper() else 'small letter ') + character.lower()
    styles = [word for key, word in _STYLES.items() if key in font.name]
    if styles and rng.random() < 0.5:
        name = f'{rng.choice(styles)} {name}'
    return str(rng.choice(_TEMPLATES)).format(name)


@DATASETS.register_module()
class PrintedCharacters(BaseDataset):
    """Digits and letters in matplotlib's fonts, with captions in words.

    Nothing is downloaded: sample i is drawn from (seed, i). A picture is drawn
    once in a process and kept, in less than 1 KB. Nothing in it is handwritten,
    so what a model trained on it knows of handwriting is zero-shot.

    Args:
        num_samples (int): Number of pictures. Defaults to 24000.
        seed (int): Defaults to 0.
        **kwargs: See MMPretrain's ``BaseDataset``.
    """

    METAINFO = {'classes': tuple(CHARACTERS)}

    def __init__(self, num_samples: int = 24000, seed: int = 0, **kwargs):
        self.num_samples, self.seed = num_samples, seed
        self._pictures: dict[int, np.ndarray] = {}
        kwargs.setdefault('ann_file', '')
        super().__init__(**kwargs)

    def load_data_list(self) -> list[dict]:
        """Choose character, font and caption of every sample; pictures are drawn when they are asked for."""
        rng = np.random.default_rng(self.seed)
        fonts = font_files()
        labels = rng.integers(len(CHARACTERS), size=self.num_samples)
        faces = rng.integers(len(fonts), size=self.num_samples)
        return [
            {
                'gt_label': int(y),
                'font': str(fonts[f]),
                'caption': describe_character(CHARACTERS[y], fonts[f], rng),
            }
            for y, f in zip(labels, faces)
        ]

    def get_data_info(self, idx: int) -> dict:
        """Sample ``idx`` with its picture, ``img`` of shape (28, 28, 3)."""
        info = super().get_data_info(idx)
        if idx not in self._pictures:
            rng = np.random.default_rng([self.seed, idx])
            self._pictures[idx] = render_character(CHARACTERS[info['gt_label']], Path(info['font']), rng)
        info['img'] = np.repeat(self._pictures[idx][..., None], 3, 2)
        return info

    def get_gt_labels(self) -> np.ndarray:
        """Labels without drawing the pictures."""
        return np.array([super(PrintedCharacters, self).get_data_info(i)['gt_label'] for i in range(len(self))])

    def extra_repr(self) -> list[str]:
        """Lines of ``repr``."""
        return [f'Fonts: \t{len(font_files())}']

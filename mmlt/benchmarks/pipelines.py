"""Pictures a second that one core makes ready for a training step: MMPretrain's transforms against the configs'.

    python tools/benchmarks/pipelines.py [--rounds 5] [--size 500 375] [--pictures 32] [--folder my/jpegs]

The train pipelines of VL-LTR, BALLAD, LIFT and LIFT+, with the loader and the transforms of MMPretrain and the same
settings, and as the configs have them, on JPEGs of quality 90 that are made for it, or lie in a folder. It runs in one
thread, in turns, by the processor's time. The last line is the decoding of whole pictures alone.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import cv2
import numpy as np
import torch
from mmengine.config import Config
from mmengine.dataset import Compose
from mmengine.registry import DefaultScope
from mmpretrain.datasets.transforms import RandomResizedCrop
from mmpretrain.registry import TRANSFORMS
from PIL import Image
from rich.console import Console
from rich.table import Table

from mmlt.datasets import GrowingRandomResizedCrop
from mmlt.datasets.deferred_picture import DeferredPicture
from mmlt.datasets.pictures import decode_picture, is_picture
from mmlt.datasets.transforms import picture_pipeline
from mmlt.engine.configs import CONFIGS

# Name, file below configs/_base_/datasets, variable.
PIPELINES = (
    ('VL-LTR', 'vlltr_pipelines.py', 'vlltr_train_pipeline'),
    ('BALLAD', 'clip_pictures.py', 'train_pipeline'),
    ('LIFT', 'lift_pipelines.py', 'lift_train_pipeline'),
    ('LIFT+', 'lift-plus_pipelines.py', 'lift_train_pipeline'),
)


def picture(rng: np.random.Generator, width: int, height: int, noise: float) -> np.ndarray:
    """Something like a photograph: smooth colours of several scales, edges, and noise."""
    image = np.zeros((height, width, 3), np.float32)
    for cells, strength in ((4, 70), (12, 40), (40, 20), (120, 10)):
        coarse = rng.normal(size=(max(1, cells * height // width), cells, 3)).astype(np.float32)
        image += strength * cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    for _ in range(12):
        mask = np.zeros((height, width), np.uint8)
        centre, axes = rng.integers((width, height)).tolist(), rng.integers(10, width // 4, 2).tolist()
        cv2.ellipse(mask, centre, axes, float(rng.uniform(0, 180)), 0, 360, 1, -1)
        image += mask[..., None] * rng.uniform(-80, 80, 3).astype(np.float32)
    image += rng.normal(scale=noise, size=(height, width, 1)).astype(np.float32)
    return np.clip(image + 120, 0, 255).astype(np.uint8)


def make_pictures(folder: Path, number: int, size: tuple[int, int], noise: float) -> list[str]:
    """Write JPEGs; return their paths."""
    rng = np.random.default_rng(0)
    paths = [str(folder / f'{i}.jpg') for i in range(number)]
    for path in paths:
        Image.fromarray(picture(rng, *size, noise)).save(path, quality=90)
    return paths


class PlainGrowingCrop(GrowingRandomResizedCrop):
    """LIFT+'s crops of the first epoch, cut and resized as MMPretrain does."""

    transform = RandomResizedCrop.transform


def of_mmpretrain(transform: dict) -> dict:
    """The transform of MMPretrain that one of ours stands for."""
    kind = transform['type'].removeprefix('mmlt.')
    if kind == 'LoadPicture':
        return dict(type='LoadImageFromFile', imdecode_backend='pillow')
    return dict(transform, type=PlainGrowingCrop if kind == 'GrowingRandomResizedCrop' else kind)


def build(pipeline: list[dict]) -> Compose:
    """The transforms of a pipeline."""
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        return Compose([TRANSFORMS.build(transform) for transform in pipeline])


def as_sample(pipeline: Compose) -> Callable[[str], dict]:
    """From a path to what a worker gives."""
    return lambda path: pipeline(dict(img_path=path, gt_label=0))


def times(before: Callable[[str], object], now: Callable[[str], object], paths: list[str], rounds: int) -> list[str]:
    """Pictures a second of two ways in turn, and the median of their ratios, as text."""
    spent = (list[float](), list[float]())
    for i in range(rounds + 1):
        for run, found in zip((before, now), spent):
            np.random.seed(i)  # the same crops, flips and colours in both
            start = time.process_time()
            for path in paths:
                run(path)
            if i:
                found.append((time.process_time() - start) / len(paths))
    ratio = median(b / n for b, n in zip(*spent))
    return [f'{1 / median(found):.0f}' for found in spent] + [f'{ratio:.2f}']


def pipeline_table(paths: list[str], rounds: int) -> Table:
    """The table of all pipelines."""
    table = Table(title='pictures a second a core', title_justify='left')
    for column in ('pipeline', "MMPretrain's transforms", "the configs'", 'times faster'):
        table.add_column(column, justify='left' if column == 'pipeline' else 'right')
    for name, file, variable in PIPELINES:
        pipeline = Config.fromfile(CONFIGS / '_base_/datasets' / file)[variable]
        before, now = build([of_mmpretrain(t) for t in pipeline]), build(picture_pipeline(pipeline))
        table.add_row(name, *times(as_sample(before), as_sample(now), paths, rounds))

    def whole(path: str) -> np.ndarray:
        deferred = DeferredPicture(Path(path).read_bytes(), path)
        return deferred.crop((0, 0, *deferred.shape[:2]))

    table.add_row('decoding alone', *times(lambda p: decode_picture(Path(p).read_bytes()), whole, paths, rounds))
    return table


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--rounds', type=int, default=5)
    parser.add_argument('--size', type=int, nargs=2, default=(500, 375), metavar=('WIDTH', 'HEIGHT'))
    parser.add_argument('--pictures', type=int, default=32)
    parser.add_argument('--noise', type=float, default=4, help='of made pictures, in grey values; more makes more kB')
    parser.add_argument('--folder', type=Path, help='pictures to read in place of made ones')
    args = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(0)
    with tempfile.TemporaryDirectory() as folder:
        if args.folder is None:
            paths = make_pictures(Path(folder), args.pictures, args.size, args.noise)
        else:
            paths = sorted(str(p) for p in args.folder.rglob('*') if is_picture(p.name))[: args.pictures]
        print(f'{len(paths)} pictures, {sum(Path(p).stat().st_size for p in paths) / len(paths) / 1e3:.0f} kB each')
        table = pipeline_table(paths, args.rounds)
    console = Console()
    if not console.is_terminal:
        console.width = 120
    console.print(table)

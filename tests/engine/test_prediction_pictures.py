"""Drawings of predictions: right colours, one for each sample, under names that tell the class."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

RED, BLUE = (220, 20, 20), (20, 20, 220)


@pytest.fixture
def coloured(two_stages, picture_folder) -> Path:
    """The picture folder with red apples, blue pears, of which several have one name, and grey plums."""
    for name, colour in (('apple', RED), ('pear', BLUE), ('plum', (128, 128, 128))):
        for path in (picture_folder / 'images' / name).iterdir():
            Image.new('RGB', (60, 60), colour).save(path)
    lines = [f'{name}/{i}.png {label}' for label, name in enumerate(('apple', 'pear', 'plum')) for i in range(3)]
    (picture_folder / 'test.txt').write_text('\n'.join(lines) + '\n')
    return two_stages


def corner(path) -> tuple[int, ...]:
    """Colour where no text stands."""
    return tuple(np.asarray(Image.open(path).convert('RGB'))[-3, -3].tolist())


def test_colours_and_names(coloured, test_tool):
    test_tool.main(['a.py', '--show-dir', 'shown'])
    drawn = sorted(str(p.relative_to('shown')) for p in Path('shown').rglob('*.png'))
    assert drawn == [f'{name}/{i}.png_0.png' for name in ('apple', 'pear', 'plum') for i in range(3)]
    assert corner('shown/apple/0.png_0.png') == pytest.approx(RED, abs=3)
    assert corner('shown/pear/1.png_0.png') == pytest.approx(BLUE, abs=3)


def test_every_second_and_several_views(coloured, test_tool):
    """Batches of 4, 4 and 1: samples are counted, not batches; of the views of --tta the first is drawn."""
    test_tool.main(['a.py', '--tta', '--show-dir', 'shown', '--interval', '2'])
    drawn = sorted(str(p.relative_to('shown')) for p in Path('shown').rglob('*.png'))
    assert drawn == [f'{p}.png_0.png' for p in ('apple/0', 'apple/2', 'pear/1', 'plum/0', 'plum/2')]
    assert corner('shown/pear/1.png_0.png') == pytest.approx(BLUE, abs=3)


def test_pictures_that_are_rgb_and_have_no_files(coloured, test_tool):
    """CIFAR's kind: arrays in RGB, whose drawings are called by their numbers; and MMPretrain's hook gives way."""
    Path('arrays.py').write_text(
        """
_base_ = ['./a.py']
pipeline = [dict(type='PackInputs')]
test_dataloader = dict(dataset=dict(
    _delete_=True, type='CustomArrays', pipeline=pipeline, lazy_init=True))
model = dict(data_preprocessor=dict(to_rgb=False))
"""
    )
    from mmengine.dataset import BaseDataset
    from mmpretrain.registry import DATASETS

    @DATASETS.register_module(force=True)
    class CustomArrays(BaseDataset):
        METAINFO = dict(classes=('apple', 'pear', 'plum'), class_counts=[6, 3, 1])

        def load_data_list(self):
            colours = (RED, BLUE, RED, BLUE, RED)
            return [dict(img=np.full((32, 32, 3), c, np.uint8), gt_label=i % 3) for i, c in enumerate(colours)]

        def full_init(self):
            self.ann_file = ''
            super().full_init()

    try:
        stock = 'default_hooks.visualization.type=VisualizationHook'
        test_tool.main(['arrays.py', '--show-dir', 'shown', '--cfg-options', stock])
    finally:
        DATASETS._module_dict.pop('CustomArrays')
    drawn = sorted(p.name for p in Path('shown').rglob('*.png'))
    assert drawn == [f'{i}_0.png' for i in range(5)]
    assert corner('shown/0_0.png') == pytest.approx(RED, abs=3)
    assert corner('shown/3_0.png') == pytest.approx(BLUE, abs=3)

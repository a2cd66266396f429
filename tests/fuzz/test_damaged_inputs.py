"""Damaged and odd inputs of every kind: each is read, item by item, or refused by one sentence.

Case n of a kind is made from the seed (n, kind); a failure names it. 5 cases of each kind are quick, 50 slow.
"""

import csv
import io
import json
import re
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import nn

from mmlt import InputError
from mmlt.checkpoints import read_checkpoint, read_config_text
from mmlt.checkpoints.arrays import read_array
from mmlt.checkpoints.weights import load_weights
from mmlt.datasets import ClassTexts, LoadPicture, LongTailedDataset
from mmlt.datasets.multi_label_files import parse_label_list, read_label_scores
from mmlt.models.anchors import Anchors
from mmlt.options import CfgOptions, ToolParser
from mmlt.preparation.picture_sources import read_source
from mmlt.utils.text_files import decode

CLASSES = ('apple', 'pear', 'plum')
NASTY = [
    '\ufeff', '\r\n', '\r', '\t', '\0', '"', "'", ',', ';', '|', '\\', '/', '..', '../', '-1', '3', '99', '1.0', '1.5',
    '1e400', 'nan', 'inf', 'NaN', 'Infinity', '9' * 30, '9' * 5000, '', ' ', '\u00a0', 'é', 'e\u0301', '苹果', '\u202e',
    '\x1b[31m', '#', '%s', '{}', '${HOME}', '$(touch touched)', '[', ']', '{', '}', 'true', 'null', '\n\n', '\x0b',
    '\x85', '\u2028', 'APPLE', 'apple', 'apple.PNG', 'C:\\a.png', '//', '~', '~root', '-', '--', '=', '==', '()',
    "__import__('os')",
]  # fmt: skip


def mutated(data: bytes, rng: np.random.Generator) -> bytes:
    """One or two changes of bytes."""
    for _ in range(rng.integers(1, 3)):
        a, b = sorted(rng.integers(0, len(data) + 1, 2).tolist())
        kind = rng.integers(0, 9)
        if kind == 0:
            data = data[:a]
        elif kind == 1:
            data = data[:a] + data[b:]
        elif kind == 2:
            data = data[:a] + data[a:b] + data[a:]
        elif kind == 3 and data:
            flipped = bytearray(data)
            for i in rng.integers(0, len(data), 3):
                flipped[i] ^= 1 << int(rng.integers(0, 8))
            data = bytes(flipped)
        elif kind == 4:
            data = data[:a] + rng.bytes(int(rng.integers(1, 9))) + data[a:]
        elif kind == 5 and rng.random() < 0.3:
            data = data.decode('latin-1').encode(('utf-16', 'utf-16-le', 'utf-8-sig', 'utf-8')[rng.integers(0, 4)])
        else:
            data = data[:a] + NASTY[rng.integers(0, len(NASTY))].encode() + data[b if rng.random() < 0.3 else a :]
    return data


def of_text(text: str, rng: np.random.Generator) -> bytes:
    """A few words replaced, or bytes changed."""
    if rng.random() < 0.5:
        words = re.split(r'(\W)', text)
        for i in rng.integers(0, len(words), rng.integers(1, 3)):
            words[i] = NASTY[rng.integers(0, len(NASTY))]
        return ''.join(words).encode()
    return mutated(text.encode(), rng)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in CLASSES:
        (tmp_path / 'images' / name).mkdir(parents=True)
        for i in range(2):
            Image.new('RGB', (9, 8), (10 * i, 50, 90)).save(tmp_path / 'images' / name / f'{i}.png')
    return tmp_path


FILES = [f'{name}/{i}.png' for name in CLASSES for i in range(2)]


def lines_of(data: bytes) -> list[str]:
    """Lines that say something, as a simple reader sees them."""
    return [line for line in re.split(r'\r\n|\n|\r', decode(data, 'x', strict=True)) if line.strip()]


def annotation_list(folder, rng):
    data = of_text('\n'.join(f'{f} {CLASSES.index(f.split("/")[0])}' for f in FILES) + '\n', rng)
    (folder / 'list.txt').write_bytes(data)
    dataset = LongTailedDataset(
        data_root=str(folder), data_prefix='images', ann_file='list.txt', classes=list(CLASSES), pipeline=[]
    )
    dataset.full_init()
    assert len(dataset) == len(lines_of(data))
    assert sum(dataset.metainfo['class_counts']) == len(dataset)


def several_labels(folder, rng):
    data = of_text('\n'.join(f'{f} {i % 3} {(i + 1) % 3}' for i, f in enumerate(FILES)) + '\n', rng)
    (folder / 'list.txt').write_bytes(data)
    files, labels = parse_label_list('list.txt')
    assert len(files) == len(labels) == len(lines_of(data))


def table_of_labels(folder, rng):
    rows = ['image,label', *(f'{f},{f.split("/")[0]}' for f in FILES)]
    data = of_text('\n'.join(rows) + '\n', rng)
    Path('images/table.csv').write_bytes(data)
    pictures = read_source('images/table.csv', 'images')
    if b'"' not in data:
        assert len(pictures.files) == len(lines_of(data)) - 1 or any('left out' in n for n in pictures.notes)
    assert len(pictures.files) == len(pictures.labels)


def table_of_several_labels(folder, rng):
    rows = ['image,apple,pear,plum', *(f'{f},{i % 2},1,0' for i, f in enumerate(FILES))]
    data = of_text('\n'.join(rows) + '\n', rng)
    Path('table.csv').write_bytes(data)
    found = read_label_scores('table.csv', list(CLASSES))
    if b'"' not in data:
        assert len(found[0]) == len(lines_of(data)) - 1


def json_of_labels(folder, rng):
    items = [dict(img_path=f, gt_label=i // 2) for i, f in enumerate(FILES)]
    content = dict(metainfo=dict(classes=CLASSES), data_list=items)
    Path('images/list.json').write_bytes(of_text(json.dumps(content), rng))
    pictures = read_source('images/list.json', 'images')
    assert len(pictures.files) == len(pictures.labels) > 0


def class_texts(folder, rng):
    texts = {name: [f'A {name} is sweet.', f'The {name} grows on trees, it is said.'] for name in CLASSES}
    kind = rng.integers(0, 3)
    if kind == 0:
        path = Path('texts.json')
        path.write_bytes(of_text(json.dumps(texts), rng))
    elif kind == 1:
        path = Path('texts.csv')
        buffer = io.StringIO()
        csv.writer(buffer).writerows([('class', 'text'), *((n, t) for n, own in texts.items() for t in own)])
        path.write_bytes(of_text(buffer.getvalue(), rng))
    else:
        path = Path('texts')
        path.mkdir(exist_ok=True)
        for name, own in texts.items():
            (path / f'{name}.txt').write_bytes(of_text('\n'.join(own), rng))
    found = ClassTexts(templates='a photo of the {}').read(list(CLASSES), str(path))
    assert len(found) == 3 and all(own and all(isinstance(s, str) and s.strip() for s in own) for own in found)


def config_options(folder, rng):
    values = [
        '0.5',
        '[1,2]',
        "[dict(type='A', a=1)]",
        'a photo of the {}',
        '(1, 2)',
        "{'a': 1}",
        '"x, y"',
        'None',
        '1e-3',
    ]
    parser = ToolParser('A tool.')
    parser.add_argument('--cfg-options', nargs='+', action=CfgOptions)
    option = of_text(f'model.head.a={values[rng.integers(0, len(values))]}', rng).decode('utf-8', 'replace')
    parsed = parser.parse_args(['--cfg-options', option]).cfg_options
    assert len(parsed) == 1


def checkpoint_bytes(folder, rng):
    old = bool(rng.integers(0, 2))
    torch.save(
        dict(state_dict=nn.Linear(3, 2).state_dict(), meta=dict(epoch=1)),
        'a.pth',
        _use_new_zipfile_serialization=not old,
    )
    Path('a.pth').write_bytes(mutated(Path('a.pth').read_bytes(), rng))
    assert isinstance(read_checkpoint('a.pth'), dict)


def checkpoint_content(folder, rng):
    model = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    state = {k: v.clone() for k, v in model.state_dict().items()}
    keys = list(state)
    for _ in range(rng.integers(1, 3)):
        key = keys[rng.integers(0, len(keys))]
        kind = int(rng.integers(0, 9))
        value = state.get(key)
        value = value if torch.is_tensor(value) else torch.ones(1)
        others = [f'{key}.more', 1]
        values = [
            torch.ones(7, 5),
            value.long(),
            torch.full_like(value.float(), torch.nan),
            'text',
            None,
            torch.empty(0),
        ]
        if kind == 0:
            state.pop(key, None)
        elif kind < 3:
            state[others[kind - 1]] = torch.ones(1)
        else:
            state[key] = values[kind - 3]
    content = [dict(state_dict=state), state, dict(state_dict=[state]), dict(state_dict=state, meta=[1])]
    torch.save(content[rng.integers(0, 4) if rng.random() < 0.4 else 0], 'a.pth')
    expected = {k: v.clone() for k, v in model.state_dict().items()}
    load_weights(model, 'a.pth')
    for k, v in model.state_dict().items():
        assert not v.is_floating_point() or bool(v.isfinite().all())
        assert v.shape == expected[k].shape


def pictures(folder, rng):
    form = ('PNG', 'JPEG', 'GIF', 'TIFF', 'WEBP', 'BMP', 'PPM')[rng.integers(0, 7)]
    mode = ('RGB', 'L', 'P', '1', 'RGBA', 'CMYK', 'I;16', 'LA')[rng.integers(0, 8)]
    image = Image.fromarray(rng.integers(0, 255, (11, 13, 3), dtype=np.uint8))
    image = (
        image.convert('L').convert('I').point(lambda v: v * 200).convert('I;16')
        if mode == 'I;16'
        else image.convert(mode)
    )
    buffer = io.BytesIO()
    try:
        image.save(buffer, form)
    except (OSError, KeyError, ValueError):  # not of this format
        image.convert('RGB').save(buffer, form)
    data = buffer.getvalue() if rng.random() < 0.2 else mutated(buffer.getvalue(), rng)
    Path('a.img').write_bytes(data)
    whole = LoadPicture()(dict(img_path='a.img'))['img']
    assert whole.dtype == np.uint8 and whole.ndim == 3 and whole.shape[2] == 3
    part = LoadPicture(defer=True)(dict(img_path='a.img'))['img']
    assert part.shape == whole.shape
    height, width = whole.shape[:2]
    assert np.array_equal(part.crop((0, 0, height, width)), whole)


def anchors(folder, rng):
    chosen, facts = [torch.tensor([0, 1]), torch.tensor([2])], dict(classes=['a', 'b'])
    made = Anchors.gather(chosen, torch.ones(3, 4), torch.ones(3), ['a b', 'c d', 'e f'], 2, 10.0, facts)
    made.save('a.safetensors')
    Path('a.safetensors').write_bytes(mutated(Path('a.safetensors').read_bytes(), rng))
    found = Anchors.load('a.safetensors')
    assert found.features.ndim == 3


def config_text(folder, rng):
    text = "model = dict(type='A', sizes=[1, -2], parts=(dict(a=None), {'b': 1.5}))\nlr = 1e-3\n"
    assert read_config_text(of_text(text, rng).decode('utf-8', 'replace'))._cfg_dict is not None


def arrays(folder, rng):
    np.save('a.npy', np.ones((4, 3), np.float32))
    Path('a.npy').write_bytes(mutated(Path('a.npy').read_bytes(), rng))
    assert bool(read_array('a.npy', 2).isfinite().all())


def weight_files(folder, rng):
    from mmlt.models import OpenCLIPVision

    save_file({'x': torch.ones(3)}, 'a.safetensors')
    Path('a.safetensors').write_bytes(mutated(Path('a.safetensors').read_bytes(), rng))
    OpenCLIPVision('mmlt-tiny-vit', 'a.safetensors').init_weights()
    pytest.fail('these are no weights of the model')


KINDS = [
    annotation_list, several_labels, table_of_labels, table_of_several_labels, json_of_labels, class_texts,
    config_options, checkpoint_bytes, checkpoint_content, pictures, anchors, config_text, arrays, weight_files,
]  # fmt: skip


def run(kind, folder, number, note):
    rng = np.random.default_rng([number, zlib.crc32(kind.__name__.encode())])
    name = kind.__name__.replace('_', ' ')
    try:
        kind(folder, rng)
    except InputError as e:
        assert str(e).strip() and len(str(e)) < 6000  # it may name a thing of 5,000 letters
        note(name, 'one sentence')
    except SystemExit as e:  # of a parser, which has said why
        assert e.code
        note(name, 'one sentence')
    except BaseException as e:
        note(name, 'other')
        raise AssertionError(f'{name}, case {number}: {type(e).__name__}: {e}') from e
    else:
        note(name, 'accepted')
    assert not Path('touched').exists()


@pytest.mark.parametrize('kind', KINDS, ids=lambda k: k.__name__)
def test_what_is_not_damaged_is_accepted(kind, folder, monkeypatch):
    for name in ('of_text', 'mutated'):
        monkeypatch.setitem(globals(), name, lambda data, rng: data.encode() if isinstance(data, str) else data)
    if kind not in (weight_files, checkpoint_content):
        for number in range(3):
            kind(folder, np.random.default_rng(number))


@pytest.mark.parametrize('number', range(4))
@pytest.mark.parametrize('kind', KINDS, ids=lambda k: k.__name__)
def test_quick(kind, folder, number, note):
    run(kind, folder, number, note)


@pytest.mark.slow
@pytest.mark.parametrize('number', range(4, 54))
@pytest.mark.parametrize('kind', KINDS, ids=lambda k: k.__name__)
def test_more(kind, folder, number, note):
    run(kind, folder, number, note)

"""Names of contents, which caches, checkpoints and records of runs have: these must not change."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch

from mmlt.engine.data_digest import data_digest
from mmlt.models.text import token_table
from mmlt.utils import digest, object_fingerprint, tensors_fingerprint, texts_fingerprint


def test_digest_is_of_all_parts_one_after_another():
    numbers = np.arange(6, dtype=np.int32).reshape(2, 3)
    parts = ('ä', b'b', b'', numbers.T, (x for x in ('c', b'd')))
    content = 'ä'.encode() + b'b' + np.ascontiguousarray(numbers.T).tobytes() + b'cd'
    assert digest(*parts[:4], iter(['c', b'd'])) == hashlib.blake2b(content, digest_size=12).hexdigest()
    assert digest(*parts, size=32, kind='sha256') == hashlib.sha256(content).hexdigest()
    assert digest(content, size=8, kind='sha256') == hashlib.sha256(content).hexdigest()[:16]
    assert digest(content, size=16, kind='md5') == hashlib.md5(content).hexdigest()


def test_fingerprints_of_tensors_texts_and_objects():
    tensors = {
        'w': torch.arange(6.0).view(2, 3).t(),
        'n': torch.tensor(4),
        'e': torch.zeros(0, 2),
        'b': torch.tensor([True, False]),
        'h': torch.ones(2, dtype=torch.bfloat16),
    }
    assert tensors_fingerprint(tensors) == 'fb687a96893aa9bd14f02e29'
    assert texts_fingerprint([['ä b', 'c'], []]) == 'bd87cfce1daf49c47ff2d78e'
    value = {
        'a': [1, 2.5, None, 'x', b'\0', 1j],
        'b': (np.arange(4).reshape(2, 2).T, np.float32(3)),
        'c': {3, 1},
        'd': torch.float16,
        'e': torch.ones(2, 3),
        'f': np.zeros(0),
        'g': torch.Size((2,)),
        's': [],
    }
    value['again'] = value['a']
    assert object_fingerprint(value) == '6d48e1de303fd256ee2919ac'


class Data:
    def __init__(self, texts):
        self.metainfo = dict(classes=('a', 'b'), class_texts=texts)
        image = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)[:, ::2]
        self.data = [
            dict(img_path='x/y/z.png', gt_label=1, sample_idx=0),
            dict(img=image, gt_label=np.array([1, 0])),
        ]

    def __len__(self):
        return 2

    def get_data_info(self, i):
        return self.data[i]


@pytest.mark.parametrize(
    ('texts', 'expected'),
    [
        ('texts', 'b12aae1134fb421bc0f5a11e'),
        (None, 'be7efc7811a9fad8f534d227'),
        ('nowhere', '1b5d7c9890be5121251b226b'),
        ([['x']], '0c5462f2c4ae15be5a41f83f'),
    ],
)
def test_digest_of_data(tmp_path, monkeypatch, texts, expected):
    monkeypatch.chdir(tmp_path)
    Path('texts/sub').mkdir(parents=True)
    Path('texts/a.txt').write_text('an apple\n')
    Path('texts/sub/b.txt').touch()
    assert data_digest(Data(texts)) == expected


def test_name_of_kept_tokens(tmp_path, monkeypatch):
    class Tokenizer:
        context_length = 7

        def __call__(self, texts):
            return torch.zeros(len(texts), 7)

    monkeypatch.setenv('MMLT_CACHE', str(tmp_path))
    monkeypatch.setattr(token_table, '_CHUNK', 1)
    monkeypatch.setattr(token_table.open_clip, '__version__', '1')
    token_table.tokenize_corpus([['a ü'], ['b', 'c']], Tokenizer(), 'name')
    assert [p.name for p in (tmp_path / 'tokens').iterdir()] == ['3aa4971894fc495764c5b6eaf65dbd26.safetensors']

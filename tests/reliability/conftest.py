"""Small trainings of every kind, processes that are killed, and the table of what came of it."""

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import load_file

from mmlt.checkpoints import read_checkpoint

REPO = Path(__file__).parents[2]
OUTCOMES = ('tried', 'recovered, equal', 'one sentence', 'other')
TABLE: dict[str, Counter] = {}


def pytest_addoption(parser):
    parser.addoption('--kills', type=int, default=60, help='how many processes the campaign kills')
    parser.addoption('--campaign-seed', type=int, default=0, help='of the moments')


def pytest_terminal_summary(terminalreporter):
    if TABLE:
        terminalreporter.write_line(f'{"":42}' + ''.join(f'{name:>18}' for name in OUTCOMES))
        for row, counts in TABLE.items():
            terminalreporter.write_line(f'{row:42}' + ''.join(f'{counts[name]:18}' for name in OUTCOMES))


@pytest.fixture(scope='session')
def count():
    """Note an outcome in the table."""

    def note(row, outcome):
        assert outcome in OUTCOMES[1:]
        TABLE.setdefault(row, Counter()).update(['tried', outcome])

    return note


@pytest.fixture(scope='session')
def outcome():
    """What became of a training: 'recovered, equal', 'one sentence' or 'other', and what is wrong."""

    def judge(status, log, folder, expected) -> tuple[str, str]:
        text = Path(log).read_text(errors='replace')
        if status == 0:
            difference = 0 if expected is None else largest_difference(results(expected), results(folder))
            return ('recovered, equal' if difference == 0 else 'other'), f'difference {difference}; {text[-1500:]}'
        return ('one sentence' if is_one_sentence(text) else 'other'), text[-3000:]

    return judge


@pytest.fixture(scope='session')
def server():
    """Starts and waits for processes, see server.py."""
    environment = {**os.environ, 'OMP_NUM_THREADS': '1', 'PYTHONPATH': str(REPO)}
    process = subprocess.Popen(
        [sys.executable, '-W', 'ignore', str(Path(__file__).with_name('server.py'))],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
        cwd='/',
    )

    def ask(**command) -> int:
        process.stdin.write(json.dumps(dict(command, cwd=os.getcwd())) + '\n')
        process.stdin.flush()
        return int(process.stdout.readline())

    yield ask
    process.stdin.close()
    process.wait()


COMMON = """
_base_ = ['{repo}/configs/_base_/default_runtime.py']
texts = dict(apple=['An apple is round.', 'It is red.'], pear=['A pear is green.'], plum=['A plum is blue and small.'])
data = dict(type='mmlt.LongTailedDataset', data_root='{data}', data_prefix='images', classes='classes.txt',
            class_texts='texts.json')
flip = dict(type='mmlt.RandomFlip', prob=0.5, direction='horizontal')
jitter = dict(type='mmlt.ColorJitter', brightness=0.4, contrast=0.4, saturation=0.4)
load, size, pack = dict(type='mmlt.LoadPicture'), dict(type='Resize', scale=(32, 32)), dict(type='PackInputs')
train_dataloader = dict(batch_size=4, num_workers=1, drop_last=True,
    dataset=dict(ann_file='train.txt', pipeline=[load, size, flip, jitter, pack], **data),
    sampler=dict(type='DefaultSampler', shuffle=True))
test_dataloader = dict(batch_size=4, num_workers=0, persistent_workers=False,
    dataset=dict(ann_file='test.txt', train_ann_file='train.txt', pipeline=[load, size, pack], **data),
    sampler=dict(type='DefaultSampler', shuffle=False))
val_dataloader, val_evaluator = test_dataloader, [dict(type='mmlt.ShotAccuracy')]
test_evaluator = val_evaluator
train_cfg = dict(by_epoch=True, max_epochs=4, val_interval=2)
val_cfg, test_cfg = dict(), dict()
optim_wrapper = dict(optimizer=dict(type='SGD', lr=0.01, momentum=0.9))
param_scheduler = [dict(type='CosineAnnealingLR', by_epoch=True, convert_to_iter_based=True)]
default_hooks = dict(checkpoint=dict(save_best='shot/all'))
del data, flip, jitter, load, size, pack, texts
"""
TINY = "model='mmlt-tiny-vit'"
PREPROCESSOR = "data_preprocessor=dict(type='mmlt.CLIPDataPreprocessor')"
CONFIGS = {
    'a.py': f"""
_base_ = ['common.py']
model = dict(type='ImageClassifier', backbone=dict(type='mmlt.OpenCLIPVision', {TINY}),
    head=dict(type='mmlt.TextClsHead', text=dict(type='mmlt.OpenCLIPText', {TINY}), logit_scale=20.0),
    data_preprocessor=dict(type='mmlt.CLIPDataPreprocessor', num_classes=3,
                           batch_augments=dict(augments=dict(type='Mixup', alpha=0.8))))
""",
    'b.py': f"""
_base_ = ['common.py']
stages = dict(phase_a=dict(config='a.py', load_from=True))
model = dict(type='ImageClassifier', backbone=dict(type='mmlt.OpenCLIPVision', frozen=True, {TINY}),
    neck=dict(type='mmlt.BalancedLinearAdapter', in_channels=64),
    head=dict(type='mmlt.TextClsHead', text=dict(type='mmlt.OpenCLIPText', frozen=True, {TINY}), logit_scale=20.0),
    {PREPROCESSOR})
train_dataloader = dict(sampler=dict(_delete_=True, type='mmlt.ClassBalancedSampler'))
default_hooks = dict(feature_cache=dict(type='mmlt.FeatureCacheHook', views=2))
""",
    'cvlp.py': f"""
_base_ = ['common.py']
model = dict(type='mmlt.CVLP', templates='a photo of the {{}}', backbone=dict(type='mmlt.OpenCLIPVision', {TINY}),
    text=dict(type='mmlt.OpenCLIPText', {TINY}), texts=dict(type='mmlt.ClassTexts', templates='a photo of the {{}}'),
    teacher=None, loss_ratio=1.0, {PREPROCESSOR})
default_hooks = dict(
    checkpoint=dict(save_best=None),
    anchors=dict(type='mmlt.AnchorSelectionHook', num_anchors=2, images_per_class=2))
""",
    'lgr.py': f"""
_base_ = ['common.py']
stages = dict(cvlp=dict(config='cvlp.py', load_from=True))
model = dict(type='ImageClassifier', backbone=dict(type='mmlt.OpenCLIPVision', {TINY}),
    head=dict(type='mmlt.LGRHead', num_classes=3, in_channels=64, anchors='{{stage:cvlp}}/anchors.safetensors'),
    {PREPROCESSOR})
""",
    'lift.py': f"""
_base_ = ['common.py']
model = dict(type='ImageClassifier',
    backbone=dict(type='mmlt.OpenCLIPVision', projection=False,
                  adapter=dict(type='mmlt.AdaptFormer', bottleneck=4), {TINY}),
    head=dict(type='mmlt.CosineClsHead', num_classes=3, in_channels=64, text=dict(type='mmlt.OpenCLIPText', {TINY}),
              loss=dict(type='mmlt.LogitAdjustedLoss')), {PREPROCESSOR})
""",
    'more.py': f"""
_base_ = ['common.py']
classifier = dict(type='ImageClassifier', backbone=dict(type='mmlt.OpenCLIPVision', model='mmlt-tiny-rn'),
    head=dict(type='LinearClsHead', num_classes=3, in_channels=128), {PREPROCESSOR})
model = dict(type='mmlt.MORE', classifier=classifier, peak=0.5)
optim_wrapper = dict(clip_grad=dict(max_norm=5))
default_hooks = dict(more=dict(type='mmlt.MOREHook', interval=2))
del classifier
""",
    'steps.py': """
_base_ = ['a.py']
train_dataloader = dict(sampler=dict(_delete_=True, type='InfiniteSampler'))
train_cfg = dict(_delete_=True, by_epoch=False, max_iters=8, val_interval=4)
param_scheduler = []
default_hooks = dict(checkpoint=dict(by_epoch=False, interval=2, save_best=None))
""",
}


@pytest.fixture(scope='session')
def trainings(tmp_path_factory) -> Path:
    """A folder with pictures and the configs above."""
    folder = tmp_path_factory.mktemp('trainings')
    rng = np.random.default_rng(0)
    lists = {'train': [], 'test': []}
    for label, (name, number) in enumerate(dict(apple=7, pear=4, plum=2).items()):
        (folder / 'images' / name).mkdir(parents=True)
        for i in range(number + 2):
            pixels = rng.integers(0, 80, (40, 36, 3), dtype=np.uint8)
            pixels[..., label] += 150
            Image.fromarray(pixels).save(folder / 'images' / name / f'{i}.png')
            lists['train' if i < number else 'test'].append(f'{name}/{i}.png {label}')
    for split, lines in lists.items():
        (folder / f'{split}.txt').write_text('\n'.join(lines) + '\n')
    (folder / 'classes.txt').write_text('apple\npear\nplum\n')
    texts = dict(apple=['An apple is round.', 'It is red.'], pear=['A pear is green.'], plum=['A plum is blue.'])
    (folder / 'texts.json').write_text(json.dumps(texts))
    (folder / 'common.py').write_text(COMMON.replace('{repo}', str(REPO)).replace('{data}', str(folder)))
    for name, text in CONFIGS.items():
        (folder / name).write_text(text)
    return folder


def results(folder) -> dict:
    """All that a training computed: weights of every stage, anchors, figures."""
    found = {}
    for path in sorted(Path(folder).rglob('*')):
        name = str(path.relative_to(folder))
        if path.suffix == '.pth':
            found[name] = read_checkpoint(path)['state_dict']
        elif path.suffix == '.safetensors':
            found[name] = load_file(path)
        elif path.name == 'shot_report.json':
            found[name] = json.loads(path.read_text())
    return found


def largest_difference(one: dict, other: dict) -> float:
    """Over all that both trainings must have in common; infinite where something is missing or of another kind."""
    largest = 0.0
    for name, content in one.items():
        if name not in other or content.keys() != other[name].keys():
            return float('inf')
        for key, value in content.items():
            if hasattr(value, 'double'):
                largest = max(largest, float((value.double() - other[name][key].double()).abs().max() or 0))
            elif key not in ('checkpoint', 'config', 'work_dir', 'run') and value != other[name][key]:
                return float('inf')
    return largest


def is_one_sentence(log: str) -> bool:
    """Whether the last line is the tool's sentence and no traceback stands above it."""
    lines = [line for line in log.strip().splitlines() if line.strip()]
    return bool(lines) and lines[-1].startswith('mmlt: ') and 'Traceback' not in log

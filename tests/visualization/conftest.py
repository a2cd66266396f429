"""Runs that nobody trained: folders with all files that a finished run has, of any number of classes."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from mmlt.evaluation import Predictions, expected_calibration_error, shot_accuracy
from mmlt.evaluation.functional import SHOTS, get_protocol, shot_groups
from mmlt.models.anchors import Anchors

CONFIG = """
model = dict(
    type='ImageClassifier',
    backbone=dict(type='mmlt.OpenCLIPVision', model='mmlt-tiny-rn'),
    head=dict(type='mmlt.LGRHead', num_classes=3, in_channels=4, anchors='anchors.safetensors'))
train_cfg = dict(max_epochs=3)
"""
LOG = """2026/01/01 00:00:00 - mmengine - INFO - System environment:
    Platform: Some System 1.0
    PyTorch: 9.8.7
2026/01/01 00:00:00 - mmengine - INFO - Runtime environment:
    seed: 0
"""


def report_of(found: Predictions, counts, names) -> dict:
    """What ``ShotAccuracy`` would have reported."""
    metrics = shot_accuracy(found.label, found.prediction, counts)
    accuracy = metrics.pop('per_class')
    right = found.label == found.prediction
    metrics['ece'] = expected_calibration_error(found.confidence.astype(float), right)
    groups = shot_groups(counts, get_protocol('standard'))
    return {
        'protocol': 'standard',
        'num_samples': len(found.label),
        'measure': 'accuracy',
        'metrics': metrics,
        'classes_per_shot': {shot: int((groups == i).sum()) for i, shot in enumerate(SHOTS)},
        'per_class': [
            dict(zip(('class', 'train_images', 'shot', 'accuracy'), (n, int(c), SHOTS[g], float(a))))
            for n, c, g, a in zip(names, counts, groups, accuracy)
        ],
    }


def predict(counts, images, rng, paths) -> Predictions:
    """Predictions that are right more often, and surer, where a class is larger."""
    classes = len(counts)
    label = np.repeat(np.arange(classes), images)
    sure = 0.35 + 0.5 * np.log(counts[label]) / np.log(counts.max())
    right = rng.random(len(label)) < sure
    # Neighbours are mistaken for each other, and what is rare for what is frequent.
    other = np.where(
        rng.random(len(label)) < 0.5, (label + 1) % classes, rng.integers(0, max(classes // 3, 1), len(label))
    )
    prediction = np.where(right, label, other)
    confidence = np.clip(sure + rng.normal(0, 0.15, len(label)), 0.02, 1)
    rows = [(int(a), int(b), float(c), paths[i % len(paths)], i) for i, (a, b, c) in
            enumerate(zip(label, prediction, confidence))]  # fmt: skip
    return Predictions.gather(rows)


def make_run(folder, names, images=20, seed=0, pictures=8, side=(60, 80)):
    """Write a run; returns its predictions and training counts."""
    rng = np.random.default_rng(seed)
    start = folder / '20260101_000000'
    (start / 'vis_data').mkdir(parents=True)
    counts = np.round(500 * 0.004 ** (np.arange(len(names)) / max(len(names) - 1, 1))).astype(int)
    paths = []
    for i in range(pictures):
        paths.append(str(folder / f'{i}.png'))
        Image.fromarray(rng.integers(0, 256, (*side, 3), dtype=np.uint8)).save(paths[-1])
    found = predict(counts, images, rng, paths or [''])
    found.save(folder / 'predictions.npz')
    (folder / 'shot_report.json').write_text(json.dumps(report_of(found, counts, names)))
    (start / 'vis_data/config.py').write_text(CONFIG.replace("'anchors.s", f"'{folder}/anchors.s"))
    (start / f'{start.name}.log').write_text(LOG)
    entries = []
    for epoch in (1, 2, 3):
        entries += [{'loss': 2 / (epoch - 0.5), 'epoch': epoch, 'iter': epoch * 10 - 5, 'step': epoch * 10 - 5}]
        entries += [{'loss': 2 / epoch, 'epoch': epoch, 'iter': epoch * 10, 'step': epoch * 10}]
        entries += [{'shot/all': 50.0 + epoch, 'shot/few': 20.0 + epoch, 'shot/nll': 3 / epoch, 'step': epoch}]
    (start / 'vis_data/scalars.json').write_text('\n'.join(map(json.dumps, entries)))
    sentences = [[f'sentence {i} of {name}' for i in range(4)] for name in names]
    scores = torch.tensor([[3.0, 1.0, 2.0, 4.0]]).repeat(len(names), 1)
    features = torch.zeros(len(names), 4, 2)
    anchors = Anchors(features, torch.full((len(names),), 4), scores, sentences, 1.0, {'classes': names})
    anchors.save(str(folder / 'anchors.safetensors'))
    return found, counts


@pytest.fixture(scope='session', name='make_run')
def _make_run():
    """The function that writes a run."""
    return make_run

"""A training step of BALLAD's phase B: as published, with cached texts, and with cached features.

    python tools/benchmarks/feature_cache.py [--model RN50] [--batch 32] [--classes 100] [--rounds 3]

As published, images and prompts pass both frozen towers at every step. The images are random and in memory, so that
reading pictures is not part of any figure.
"""

import argparse

import numpy as np
import open_clip
import torch
from mmengine.optim import OptimWrapper
from mmpretrain.registry import MODELS
from mmpretrain.structures import DataSample
from torch.utils.data import DataLoader, SequentialSampler

from mmlt.benchmarks.common import compare
from mmlt.engine.hooks.feature_cache import FeatureLoader


def parse_args(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--model', default='RN50')
    parser.add_argument('--batch', type=int, default=32)
    parser.add_argument('--classes', type=int, default=100)
    parser.add_argument('--rounds', type=int, default=3)
    return parser.parse_args(argv)


def phase_b(args, config: dict):
    """BALLAD's second phase: both towers frozen, an adapter."""
    return MODELS.build(
        dict(
            type='ImageClassifier',
            backbone=dict(type='mmlt.OpenCLIPVision', model=args.model, frozen=True),
            neck=dict(type='mmlt.BalancedLinearAdapter', in_channels=config['embed_dim']),
            head=dict(
                type='mmlt.TextClsHead',
                text=dict(type='mmlt.OpenCLIPText', model=args.model, frozen=True),
                classes=open_clip.IMAGENET_CLASSNAMES[: args.classes],
            ),
            data_preprocessor=dict(type='mmlt.CLIPDataPreprocessor'),
        )
    ).train()


def main():
    args = parse_args()
    torch.manual_seed(0)
    config = open_clip.get_model_config(args.model)
    model = phase_b(args, config)
    wrapper = OptimWrapper(torch.optim.SGD(model.neck.parameters(), lr=0.2, momentum=0.9))
    size = config['vision_cfg']['image_size']
    labels = np.random.default_rng(0).integers(args.classes, size=args.batch)
    images = dict(
        inputs=torch.randint(0, 256, (args.batch, 3, size, size), dtype=torch.uint8),
        data_samples=[DataSample().set_gt_label(int(y)) for y in labels],
    )
    with torch.no_grad():
        prepared = model.data_preprocessor(images, False)['inputs']
        features = model.backbone(prepared)[-1][None]
    loader = DataLoader(range(args.batch), batch_size=args.batch, sampler=SequentialSampler(range(args.batch)))
    cached = FeatureLoader(features, labels, loader, torch.device('cpu'), seed=0)
    head = model.head

    def as_published():
        with torch.no_grad():
            head.text_features = head.text.clip.encode_text(head.class_tokens[0])[None]
        model.train_step(images, wrapper)

    def uncached():
        model.train_step(images, wrapper)

    def from_cache():
        for batch in cached:
            model.train_step(batch, wrapper)

    print(f'{args.model}, batch {args.batch}, {args.classes} classes, {torch.get_num_threads()} threads')
    compare(
        'one training step of phase B',
        {
            'both towers at every step (as published)': as_published,
            'image tower at every step (views=0)': uncached,
            'cached features (views=1, default)': from_cache,
        },
        args.rounds,
    )

"""How often a training with MORE diverges at a high learning rate, and whether it says so.

    OMP_NUM_THREADS=1 python tools/benchmarks/more_divergence.py [--seeds 3] [--iterations 150] [--batch 16]

MMPretrain's ResNet-18 with MORE from random weights, MMEngine's runner with its default hooks and MOREHook alone, SGD
with momentum 0.9. The images are noise with a pattern of their class, in memory; class counts fall from 500 to 5.
A run is 'finite' if it ends and all weights of its merged checkpoint are finite; 'stopped' if MOREHook's sentence ends
it, with no merged checkpoint; all else is 'silent': non-finite weights, with nothing said.
"""

import argparse
import logging
import os.path as osp
import tempfile
import time

import torch
from mmengine.config import Config
from mmengine.runner import Runner
from mmpretrain.structures import DataSample
from mmpretrain.utils import register_all_modules
from torch.utils.data import DataLoader, Dataset

import mmlt
from mmlt.checkpoints import read_checkpoint

COUNTS = [round(500 * 0.01 ** (c / 9)) for c in range(10)]
SETTINGS = {
    'lr 0.1': dict(),
    'lr 0.1, gradients clipped at norm 5': dict(clip_grad=dict(max_norm=5)),
    'lr 0.05': dict(lr=0.05),
    'lr 0.02': dict(lr=0.02),
    "lr 0.1, discrepancy='kl'": dict(discrepancy='kl'),
    'lr 0.1, peak=0.2': dict(peak=0.2),
    'lr 0.1, peak=0 (the control)': dict(peak=0.0),
}


class Patterns(Dataset):
    """Noise with a pattern of the class, 3 x 32 x 32."""

    def __init__(self, seed: int):
        generator = torch.Generator().manual_seed(seed)
        self.patterns = torch.randn(10, 3, 32, 32, generator=generator)
        self.labels = [c for c, n in enumerate(COUNTS) for _ in range(n)]
        self.metainfo = dict(classes=[str(c) for c in range(10)], class_counts=COUNTS)
        self.noise = torch.randn(len(self.labels), 3, 32, 32, generator=generator)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> dict:
        label = self.labels[index]
        image = 0.5 * self.patterns[label] + self.noise[index]
        return dict(inputs=image, data_samples=DataSample().set_gt_label(label))


def collate(samples: list[dict]) -> dict:
    return {key: [s[key] for s in samples] for key in samples[0]}


def train_once(seed, iterations, batch, folder, lr=0.1, clip_grad=None, **more) -> tuple[str, str]:
    """One training; 'finite', 'stopped' or 'silent', and what was said."""
    torch.manual_seed(seed)
    classifier = dict(
        type='ImageClassifier',
        backbone=dict(type='ResNet', depth=18),
        neck=dict(type='GlobalAveragePooling'),
        head=dict(type='LinearClsHead', num_classes=10, in_channels=512),
    )
    loader = DataLoader(
        Patterns(seed), batch, shuffle=True, drop_last=True, collate_fn=collate,
        generator=torch.Generator().manual_seed(seed),
    )  # fmt: skip
    runner = Runner(
        model=dict(type='mmlt.MORE', classifier=classifier, **more),
        work_dir=folder,
        train_dataloader=loader,
        train_cfg=dict(by_epoch=False, max_iters=iterations),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=lr, momentum=0.9), clip_grad=clip_grad),
        custom_hooks=[dict(type='mmlt.MOREHook')],
        default_scope='mmpretrain',
        randomness=dict(seed=seed),
        log_level='CRITICAL',
        experiment_name=osp.basename(folder),
        cfg=Config(dict(work_dir=folder)),
    )
    said = ''
    try:
        runner.train()
    except mmlt.InputError as error:
        said = str(error)
    merged = osp.join(folder, 'merged.pth')
    if said:
        return 'silent' if osp.exists(merged) else 'stopped', said
    state = read_checkpoint(merged)['state_dict']
    return 'finite' if all(v.isfinite().all() for v in state.values()) else 'silent', said


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--seeds', type=int, default=3)
    parser.add_argument('--iterations', type=int, default=150)
    parser.add_argument('--batch', type=int, default=16)
    parser.add_argument('--settings', nargs='+', choices=SETTINGS, default=list(SETTINGS), metavar='SETTING')
    args = parser.parse_args()
    logging.disable(logging.CRITICAL)
    register_all_modules()
    begin = time.perf_counter()
    print('| setting | seeds finite | seeds stopped by the sentence | seeds silently non-finite |')
    print('| :-- | :-: | :-: | :-: |')
    example = ''
    for name in args.settings:
        results = []
        for seed in range(args.seeds):
            with tempfile.TemporaryDirectory() as folder:
                result, said = train_once(seed, args.iterations, args.batch, folder, **SETTINGS[name])
            results.append(result)
            example = example or said
        counts = [f'{results.count(r)} of {args.seeds}' for r in ('finite', 'stopped', 'silent')]
        print('|', ' | '.join([name, *counts]), '|', flush=True)
    print(f'{args.iterations} iterations, batch {args.batch}; {time.perf_counter() - begin:.0f} s')
    if example:
        print(f'The first sentence: {example}')

"""A training step of MORE against two plain forward and backward passes; prediction of the merged model.

    python tools/benchmarks/more_step.py [--model resnet32|vit|clip] [--batch 64] [--rounds 5] [--device cpu]

Two passes are what the method cannot do without. The control (peak=0) is measured against one. Images are random and
in memory; the optimizer's step is not part of it.
"""

import argparse
import copy
import time

import torch
from mmpretrain.registry import MODELS
from mmpretrain.structures import DataSample

from mmlt.benchmarks.common import compare
from mmlt.utils.class_info import ClassInfo

CLASSIFIERS = {
    'resnet32': dict(
        backbone=dict(type='mmlt.CIFARResNet', depth=32),
        neck=dict(type='GlobalAveragePooling'),
        head=dict(type='LinearClsHead', in_channels=64),
    ),
    'vit': dict(
        backbone=dict(type='VisionTransformer', arch='deit-small', img_size=224, patch_size=16),
        head=dict(type='VisionTransformerClsHead', in_channels=384),
    ),
    'clip': dict(
        backbone=dict(type='mmlt.OpenCLIPVision', model='ViT-B-16'), head=dict(type='LinearClsHead', in_channels=512)
    ),
}


def parse_args(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--model', choices=CLASSIFIERS, default='resnet32')
    parser.add_argument('--classes', type=int, default=100)
    parser.add_argument('--batch', type=int, default=64)
    parser.add_argument('--rounds', type=int, default=5)
    parser.add_argument('--device', default='cpu')
    return parser.parse_args(argv)


def make_batch(args):
    size = 32 if args.model == 'resnet32' else 224
    images = torch.randn(args.batch, 3, size, size, device=args.device)
    return images, [DataSample().set_gt_label(i % args.classes).to(args.device) for i in range(args.batch)]


def predict(model, images, wait):
    model.eval()

    @torch.no_grad()
    def run():
        model(images, mode='predict')
        wait()

    return run


def main():
    args = parse_args()
    torch.manual_seed(0)
    classifier = dict(type='ImageClassifier', **copy.deepcopy(CLASSIFIERS[args.model]))
    classifier['head']['num_classes'] = args.classes
    images, samples = make_batch(args)

    def build(cfg):
        return MODELS.build(copy.deepcopy(cfg)).to(args.device).train()

    def more(**options):
        model = build(dict(type='mmlt.MORE', classifier=classifier, **options))
        model.set_class_info(ClassInfo(range(args.classes), range(args.classes, 0, -1)))
        model.set_progress(1, 2)
        return model

    def wait():
        if args.device.startswith('cuda'):
            torch.cuda.synchronize()

    def step(model, passes=1):
        def run():
            model.zero_grad()
            sum(sum(model(images, samples, mode='loss').values()) for _ in range(passes)).backward()
            wait()

        return run

    clock = time.process_time if args.device == 'cpu' else time.perf_counter
    plain = build(classifier)
    print(f'{args.model}, batch {args.batch}, {args.classes} classes, {args.device}, {torch.get_num_threads()} threads')
    compare(
        'forward and backward of one training step',
        {
            'plain, two passes': step(plain, 2),
            'MORE': step(more()),
            'MORE, detach_general': step(more(detach_general=True)),
            'MORE, control (peak=0)': step(more(peak=0)),
            'plain, one pass': step(plain),
        },
        args.rounds,
        clock,
    )

    models = {'plain': plain, 'MORE, merged': more().merge(), 'MORE, split': more()}
    compare('prediction', {name: predict(m, images, wait) for name, m in models.items()}, args.rounds, clock)

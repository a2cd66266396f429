"""Size and latency of exported classifiers against the model that was trained.

    python tools/benchmarks/deployment.py [CONFIG ...] [--formats onnx torch-export torchscript] [--batches 1 8]

Weights, class names and anchor sentences are random: neither size nor time depends on them. The trained model is timed
as it is tested, its class embeddings computed before. pip install 'mmlt[deploy]' brings what ONNX needs.
"""

import argparse
import os.path as osp
import tempfile

import numpy as np
import torch
from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.registry import DefaultScope
from mmpretrain.registry import MODELS

from mmlt.benchmarks.common import compare
from mmlt.checkpoints.export import FORMATS, export, load_exported
from mmlt.engine.configs import CONFIGS
from mmlt.models.anchors import Anchors
from mmlt.models.deployed import DeployedClassifier
from mmlt.utils.class_info import ClassInfo

CLASSIFIERS = ('ballad/ballad_vit-b16_imagenet-lt', 'vlltr/vlltr_rn50_imagenet-lt', 'lift/lift_vit-b16_imagenet-lt')
NUM_ANCHORS = 64


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('configs', nargs='*', default=[str(CONFIGS / f'{c}.py') for c in CLASSIFIERS])
    parser.add_argument('--formats', nargs='+', choices=list(FORMATS), default=list(FORMATS))
    parser.add_argument('--batches', nargs='+', type=int, default=[1, 8])
    parser.add_argument('--classes', type=int, default=1000, help='where the config does not say; default 1000')
    parser.add_argument('--rounds', type=int, default=9, help='counted runs of each; default 9')
    return parser.parse_args()


def without_weights(cfg):
    """Take out every name of a weight file."""
    if isinstance(cfg, dict):
        if 'pretrained' in cfg:
            cfg['pretrained'] = None
        for value in cfg.values():
            without_weights(value)


def random_model(path: str, num_classes: int, folder: str):
    """The model of a config in eval mode, with its class or anchor embeddings."""
    cfg = Config.fromfile(path).model
    without_weights(cfg)
    num_classes = cfg.head.get('num_classes') or num_classes
    names = [f'thing {c}' for c in range(num_classes)]
    if 'anchors' in cfg.head:
        cfg.head.anchors = osp.join(folder, 'anchors.safetensors')
        Anchors.stand_in(num_classes, NUM_ANCHORS, cfg.head.in_channels).save(cfg.head.anchors)
    MMLogger.get_current_instance().setLevel('WARNING')  # initialisation is told tensor by tensor
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        model = MODELS.build(cfg)
    model.init_weights()
    if hasattr(model.head, 'set_class_info'):
        model.head.set_class_info(ClassInfo(names))
    return model.eval()


def main():
    args = parse_args()
    torch.manual_seed(0)
    print(f'{torch.get_num_threads()} threads')
    for path in args.configs:
        name = osp.splitext(osp.basename(path))[0]
        with tempfile.TemporaryDirectory() as folder, torch.no_grad():
            model = random_model(path, args.classes, folder)
            size = tuple(np.broadcast_to(model.backbone.image_size, 2).tolist())
            pictures = {n: torch.randint(0, 256, (n, 3, *size)).float() for n in args.batches}

            def trained(images, model=model):
                return model(model.data_preprocessor(dict(inputs=images.flip(1)))['inputs'], mode='tensor')

            expected = {n: trained(images) for n, images in pictures.items()}
            megabytes = sum(t.numel() * t.element_size() for t in model.state_dict().values()) / 1e6
            print(f'\n{name}: trained model {megabytes:.0f} MB')
            exported = {}
            for form in args.formats:
                file = osp.join(folder, f'model{FORMATS[form]}')
                export(DeployedClassifier(model), file, form, size)
                exported[form] = load_exported(file, form)
                written = sum(osp.getsize(f) for f in (file, f'{file}.data') if osp.isfile(f)) / 1e6
                worst = max((exported[form](p)[0] - expected[n]).abs().max().item() for n, p in pictures.items())
                print(f'{form}: {written:.0f} MB, {megabytes / written:.2f} times less; logits differ by {worst:.1e}')
            for n, images in pictures.items():
                variants = {'trained model': trained, **exported}
                compare(
                    f'{name}, batch {n}',
                    {v: lambda run=run, images=images: run(images) for v, run in variants.items()},
                    args.rounds,
                )

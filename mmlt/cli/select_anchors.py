"""Select anchor sentences (AnSS) for any CVLP checkpoint, or for the pretrained model as it is.

The config is that of a CVLP training; it does this by itself at its end. Here it is done again in another way, for
other weights, or without any training:

    mmlt anchors CONFIG CHECKPOINT --out anchors.safetensors --method random
    mmlt anchors CONFIG --out anchors.safetensors          # no checkpoint: the pretrained weights
"""

import csv
import os
import os.path as osp

import torch
from mmengine.logging import MMLogger
from mmengine.registry import DATASETS
from mmpretrain.registry import MODELS

from mmlt.checkpoints import whole_file
from mmlt.checkpoints.weights import load_weights
from mmlt.cli.common import told
from mmlt.engine.anchor_selection import select_anchors
from mmlt.engine.configs import read_config
from mmlt.engine.hooks.anchor_selection import write_anchors
from mmlt.engine.options import CfgOptions, ToolParser, at_least
from mmlt.engine.stages import resolve_placeholders
from mmlt.engine.workers import num_workers
from mmlt.errors import InputError
from mmlt.models import CVLP


def parse_args(argv=None):
    parser = ToolParser(__doc__)
    parser.add_argument('config', help='config of a CVLP training')
    parser.add_argument('checkpoint', nargs='?', help='its checkpoint; without one, the pretrained weights')
    parser.add_argument('--out', required=True, help='anchor file to write, .safetensors')
    parser.add_argument('--num-anchors', type=at_least(1), help="sentences a class, M; default the config's")
    parser.add_argument(
        '--images-per-class', type=at_least(1), help="images that score a sentence; default the config's"
    )
    parser.add_argument('--method', choices=['anss', 'cutoff', 'random'], help="default the config's")
    parser.add_argument('--seed', type=at_least(0), default=0, help='which images are drawn; default 0')
    parser.add_argument('--csv', help='also write every sentence with its class, rank and score to this file')
    parser.add_argument('--cfg-options', nargs='+', action=CfgOptions, help='settings to override, key=value')
    return parser.parse_args(argv)


def write_csv(path: str, classes, sentences, scores) -> None:
    """All sentences, best first in their class."""
    with whole_file(path) as part, open(part, 'w', newline='', encoding='utf-8') as f:
        writer = csv.writer(f)
        writer.writerow(['class', 'rank', 'score', 'sentence'])
        for name, own, values in zip(classes, sentences, scores.split([len(s) for s in sentences])):
            for rank, (score, sentence) in enumerate(sorted(zip(values.tolist(), own)), 1):
                writer.writerow([name, rank, f'{score:.4f}', sentence])


@told
def main(argv=None):
    args = parse_args(argv)
    cfg = read_config(args.config, args.cfg_options)
    cfg.setdefault('work_dir', osp.join('work_dirs', osp.splitext(osp.basename(args.config))[0]))
    resolve_placeholders(cfg)
    MMLogger.get_current_instance().setLevel('WARNING')  # initialisation is told tensor by tensor
    model = MODELS.build(cfg.model)
    if not isinstance(model, CVLP):
        raise InputError(f"'{args.config}' is no config of a CVLP training: its model is {cfg.model.type}.")
    dataset = DATASETS.build(cfg.train_dataloader.dataset)
    dataset.full_init()
    model.set_class_info(*(dataset.metainfo.get(k) for k in ('classes', 'class_counts', 'class_texts')))
    model.init_weights()
    if args.checkpoint:
        load_weights(model, args.checkpoint)
    model.to('cuda' if torch.cuda.is_available() else 'cpu')
    hook = dict(cfg.get('default_hooks', {}).get('anchors') or {})
    settings = {
        key: hook.get(key, default) if getattr(args, key) is None else getattr(args, key)
        for key, default in (('num_anchors', 64), ('images_per_class', 50), ('method', 'anss'))
    }
    evaluated = cfg.get('test_dataloader') or cfg.get('val_dataloader') or cfg.train_dataloader
    anchors, scores = select_anchors(
        model,
        dataset,
        evaluated.dataset.pipeline,
        **settings,
        seed=args.seed,
        batch_size=cfg.train_dataloader.batch_size,
        num_workers=num_workers(cfg.train_dataloader.num_workers),
    )
    os.makedirs(osp.dirname(osp.abspath(args.out)), exist_ok=True)
    write_anchors(anchors, scores, model.table.sentences, args.out, print)
    if args.csv:
        write_csv(args.csv, model.head.classes, model.table.sentences, scores)

"""Select anchor sentences (AnSS) for any CVLP checkpoint, or for the pretrained model as it is.

The config is that of a CVLP training; it does this by itself at its end. Here it is done again in another way, for
other weights, or without any training:

    mmlt anchors CONFIG CHECKPOINT --out anchors.safetensors --method random
    mmlt anchors CONFIG --out anchors.safetensors          # no checkpoint: the pretrained weights
"""

import os.path as osp

from mmlt.choices import ANCHOR_METHODS
from mmlt.cli.common import verb
from mmlt.options import CfgOptions, ToolParser, at_least


def parse_args(argv=None):
    parser = ToolParser(__doc__)
    parser.add_argument('config', help='config of a CVLP training')
    parser.add_argument('checkpoint', nargs='?', help='its checkpoint; without one, the pretrained weights')
    parser.add_argument('--out', required=True, help='anchor file to write, .safetensors')
    parser.add_argument('--num-anchors', type=at_least(1), help="sentences a class, M; default the config's")
    parser.add_argument(
        '--images-per-class', type=at_least(1), help="images that score a sentence; default the config's"
    )
    parser.add_argument('--method', choices=ANCHOR_METHODS, help="default the config's")
    parser.add_argument('--seed', type=at_least(0), default=0, help='which images are drawn; default 0')
    parser.add_argument('--csv', help='also write every sentence with its class, rank and score to this file')
    parser.add_argument('--cfg-options', nargs='+', action=CfgOptions, help='settings to override, key=value')
    return parser.parse_args(argv)


@verb(parse_args)
def main(args):
    from mmengine.logging import MMLogger

    from mmlt.engine.anchors import select_for_config
    from mmlt.engine.configs import read_config
    from mmlt.engine.stages import resolve_placeholders

    cfg = read_config(args.config, args.cfg_options)
    cfg.setdefault('work_dir', osp.join('work_dirs', osp.splitext(osp.basename(args.config))[0]))
    resolve_placeholders(cfg)
    MMLogger.get_current_instance().setLevel('WARNING')  # initialisation is told tensor by tensor
    settings = {key: getattr(args, key) for key in ('num_anchors', 'images_per_class', 'method')}
    select_for_config(cfg, args.config, args.checkpoint, args.out, args.csv, args.seed, **settings)

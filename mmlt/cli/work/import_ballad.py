"""Checkpoints of BALLAD's authors."""

from argparse import Namespace

from mmlt.checkpoints import read_checkpoint
from mmlt.checkpoints.converters import fill, from_ballad
from mmlt.engine.importing import build_to_fill, check_out, tell_head_classes, write_imported

ADAPTER = {'model.neck.relu': False, 'model.neck.bias': False}  # as published


def convert_ballad(args: Namespace) -> None:
    """Convert and write."""
    check_out(args.out)
    renamed = from_ballad(read_checkpoint(args.checkpoint), args.checkpoint)
    cfg, model = build_to_fill(args.config, args.cfg_options)
    options = ''
    if 'neck.linear.weight' in renamed.state and cfg.model.get('neck'):
        cfg, model = build_to_fill(args.config, {**(args.cfg_options or {}), **ADAPTER})
        options = ' --cfg-options ' + ' '.join(f'{key}={value}' for key, value in ADAPTER.items())
    classes = tell_head_classes(cfg, model, args.classes)
    fill(model, renamed, args.checkpoint)
    write_imported(args.out, cfg, model, classes, args.checkpoint)
    print(f'{renamed}\nWritten to {args.out}. To test it:\nmmlt test {args.config} {args.out}{options}')

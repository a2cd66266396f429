"""A checkpoint to give away, and its check."""

import os.path as osp
from argparse import Namespace

import torch
from mmpretrain.registry import MODELS

from mmlt.checkpoints import read_checkpoint, read_config_text, whole_file
from mmlt.checkpoints.publish import check_merged, is_split, plain_config, publish_checkpoint
from mmlt.checkpoints.read import check_is_file
from mmlt.checkpoints.weights import fit_state, load_state
from mmlt.engine.configs import read_config
from mmlt.errors import InputError


def image_size(model) -> int:
    """Pixels that the backbone takes, where it tells."""
    backbone = getattr(model, 'backbone', None)
    size = getattr(getattr(backbone, 'visual', None), 'image_size', None) or getattr(backbone, 'img_size', None) or 224
    return int(size[0] if isinstance(size, (tuple, list)) else size)


def check_published(checkpoint: dict, published: dict, config: str | None, size: int | None) -> str:
    """Load both into their models and compare them.

    Args:
        checkpoint (dict): Of MORE.
        published (dict): The merged one.
        config (str, optional): A plain config to load it into as well.
        size (int, optional): Pixels.

    Returns:
        str: What was found.
    """
    text = (checkpoint.get('meta') or {}).get('cfg')
    if not text:
        raise InputError(
            'The checkpoint carries no config, so the merged weights cannot be checked: it is not one of MMEngine.'
        )
    cfg = read_config_text(text, 'The checkpoint')
    model = MODELS.build(cfg.model)
    size = image_size(model) if size is None else size
    images = torch.randn(4, 3, size, size, generator=torch.Generator().manual_seed(0))
    right, found = check_merged(model, checkpoint['state_dict'], published['state_dict'], images)
    if not right:
        raise InputError(found)
    if config is not None:
        plain = MODELS.build(plain_config(read_config(config)).model)
        of = f"the model of '{config}'"
        load_state(plain, published['state_dict'], 'the merged weights', of=of)
        fit_state(plain.state_dict(), published['state_dict']).require('all', 'the merged weights', of)
        found += f"\nThe merged weights fit '{config}' key by key."
    return found


def publish(args: Namespace) -> None:
    """Write the published checkpoint."""
    check_is_file(args.in_file)
    if osp.realpath(args.in_file) == osp.realpath(args.out_file):
        raise InputError('The published checkpoint would overwrite its source: give another name.')
    checkpoint = read_checkpoint(args.in_file)
    published = publish_checkpoint(checkpoint)
    if is_split(checkpoint):
        print(check_published(checkpoint, published, args.config, args.size))
    with whole_file(args.out_file) as part:
        torch.save(published, part)
    before, after = (osp.getsize(path) / 2**20 for path in (args.in_file, args.out_file))
    print(f'{args.out_file}: {after:.1f} MB of {before:.1f} MB')

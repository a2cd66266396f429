"""From a training's checkpoint to one that is given away: plain weights, nothing else."""

from __future__ import annotations

import copy

import torch
from mmengine.config import Config
from torch import Tensor, nn

from mmlt.checkpoints import read_config_text
from mmlt.checkpoints.split_state import is_split_key, merge_state_dict
from mmlt.checkpoints.weights import not_finite
from mmlt.errors import InputError


def plain_config(cfg: Config) -> Config:
    """The plain model's config of a MORE config.

    Args:
        cfg (Config): Any config.

    Returns:
        Config: ``model`` is the wrapped classifier, and there is no
        :class:`MOREHook`; a config without MORE as it is.
    """
    cfg = copy.deepcopy(cfg)
    model = cfg.get('model') or {}
    if str(model.get('type')) not in ('mmlt.MORE', 'MORE'):
        return cfg
    cfg.model = cfg.model.classifier
    hooks = cfg.get('default_hooks') or {}
    for name in [n for n, hook in hooks.items() if _is_more_hook(hook)]:
        hooks.pop(name)
    if cfg.get('custom_hooks'):
        cfg.custom_hooks = [hook for hook in cfg.custom_hooks if not _is_more_hook(hook)]
    return cfg


def _is_more_hook(hook) -> bool:
    return isinstance(hook, dict) and str(hook.get('type')) in ('mmlt.MOREHook', 'MOREHook')


def is_split(checkpoint: dict) -> bool:
    """Whether a checkpoint has low-rank parts."""
    return any(is_split_key(key) for key in checkpoint['state_dict'])


def publish_checkpoint(checkpoint: dict) -> dict:
    """What of a checkpoint is needed to use the model.

    Args:
        checkpoint (dict): As MMEngine writes it. With an EMAHook its
            ``state_dict`` holds the averaged weights.

    Returns:
        dict: ``meta``, whose config is the plain model's, and ``state_dict``,
        merged. Optimizer, schedulers and logs are left out.

    Raises:
        InputError: No ``state_dict``; weights without their low-rank part; weights
            that are not finite.
    """
    if not isinstance(checkpoint.get('state_dict'), dict):
        raise InputError('The file is no checkpoint of MMEngine: it has no state_dict.')
    meta = dict(checkpoint.get('meta') or {})
    if is_split(checkpoint) and meta.get('cfg'):
        meta['cfg'] = plain_config(read_config_text(meta['cfg'], 'The checkpoint')).pretty_text
    with torch.no_grad():  # merged on their device, where the split model adds them up as well
        state = {key: value.detach().cpu() for key, value in merge_state_dict(checkpoint['state_dict']).items()}
    if (name := not_finite(state)) is not None:
        raise InputError(f'The weights are NaN or infinite ({name}): the training diverged, use an earlier checkpoint')
    return dict(meta=meta, state_dict=state)


@torch.no_grad()
def largest_difference(before: nn.Module, after: nn.Module, inputs: Tensor) -> tuple[float, float]:
    """Compare the logits of two models in eval mode.

    Args:
        before (nn.Module): A classifier.
        after (nn.Module): Another one.
        inputs (Tensor): Prepared images, (N, 3, H, W).

    Returns:
        tuple[float, float]: Largest difference, and largest logit.
    """
    a, b = (model.eval()(inputs, mode='tensor').float() for model in (before, after))
    return (a - b).abs().max().item(), a.abs().max().item()


def check_merged(model: nn.Module, split_state: dict, merged_state: dict, inputs: Tensor) -> tuple[bool, str]:
    """Compare merged weights in the plain model with the split ones.

    Args:
        model (nn.Module): A :class:`mmlt.MORE` of any weights; it is copied.
        split_state (dict): State dict with low-rank parts.
        merged_state (dict): The merged one; the plain model must have exactly
            its keys.
        inputs (Tensor): Prepared images, (N, 3, H, W).

    Returns:
        tuple[bool, str]: Whether the logits differ by at most 1e-5 of the
        largest (of 1, if that is smaller), and a sentence that says it.
    """
    split, merged = copy.deepcopy(model), copy.deepcopy(model).merge()  # type: ignore[operator]
    split.load_state_dict(split_state)
    merged.load_state_dict(merged_state)
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        difference, largest = largest_difference(split, merged, inputs)
    right = difference <= 1e-5 * max(largest, 1)
    return right, (
        f'{"Equivalence check" if right else "Merging changed the model, do not use the result"}: on {len(inputs)} '
        f'images the logits of merged and split weights differ by at most {difference:.1e} (largest logit '
        f'{largest:.1f})'
    )

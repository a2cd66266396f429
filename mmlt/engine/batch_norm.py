"""Statistics of BatchNorm, measured anew on training images with the weights as they are."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from functools import partial
from io import StringIO

import torch
from mmengine.dist import get_world_size
from mmengine.model import BaseModel
from mmpretrain.engine.hooks import precise_bn_hook
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.data import DataLoader

from mmlt.engine.features import own_random_state
from mmlt.errors import InputError


@torch.no_grad()
def measure_statistics(
    model: BaseModel, loader: DataLoader, layers: Collection[str], images: int = 8192, seed: int = 0
) -> None:
    """Measure the statistics of BatchNorm layers anew, in place.

    They become the means, over batches of training images, of each batch's
    mean and variance (Wu and Johnson 2021, 'Rethinking "Batch" in BatchNorm',
    section 3; MMPretrain's ``update_bn_stats``). Statistics that were averaged
    with the weights of several models belong to none of them. All other layers
    are in eval mode meanwhile, and nothing else of the model changes.

    Args:
        model (BaseModel): With a ``data_preprocessor``, not wrapped.
        loader (DataLoader): Training images, of every process its share.
        layers (Collection[str]): Names of the layers.
        images (int): How many are looked at, of all processes: whole batches,
            at least one, at most all. Defaults to 8192, MMPretrain's.
        seed (int): Of random transforms. Defaults to 0.

    Raises:
        InputError: A name that is no BatchNorm layer's; no whole batch.
    """
    norms = {name: module for name, module in model.named_modules() if isinstance(module, _BatchNorm)}
    if (other := next((name for name in layers if name not in norms), None)) is not None:
        raise InputError(f"The model has no BatchNorm layer '{other}' whose statistics could be measured.")
    if not len(loader):
        raise InputError(
            f'The training set has not one whole batch of {loader.batch_size} images on which BatchNorm statistics '
            'could be measured: set a smaller train_dataloader.batch_size.'
        )
    modes = {module: module.training for module in model.modules()}
    counters = {name: _counter(norms[name]) for name in layers}
    try:
        model.eval()
        for name in layers:
            norms[name].train()
        number = max(images, loader.batch_size * get_world_size())
        with own_random_state(seed), _no_bar():
            precise_bn_hook.update_bn_stats(model, loader, number, logger='silent')
    finally:
        for module, training in modes.items():
            module.training = training
    for name, counter in counters.items():
        if counter is not None:
            norms[name].num_batches_tracked.copy_(counter)


@contextmanager
def _no_bar() -> Iterator[None]:
    """Without the bar that MMPretrain draws for every model, on the stdout that there was at its import."""
    bar = precise_bn_hook.ProgressBar
    precise_bn_hook.ProgressBar = partial(bar, file=StringIO())
    try:
        yield
    finally:
        precise_bn_hook.ProgressBar = bar


def _counter(norm: _BatchNorm) -> Tensor | None:
    return None if norm.num_batches_tracked is None else norm.num_batches_tracked.clone()


def statistics(state: dict[str, Tensor], layers: Collection[str]) -> dict[str, Tensor]:
    """The statistics of BatchNorm layers in a state dict.

    Args:
        state (dict[str, Tensor]): Of a model.
        layers (Collection[str]): Names of the layers.

    Returns:
        dict[str, Tensor]: Copies on the CPU.
    """
    keys = [f'{layer}.{part}' for layer in layers for part in ('running_mean', 'running_var')]
    return {key: state[key].detach().cpu().clone() for key in keys}

"""Features of a whole dataset."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from mmengine.dataset import DefaultSampler, default_collate
from mmengine.dist import all_gather
from mmengine.model import BaseModel
from torch import Tensor
from torch.utils.data import DataLoader

from mmlt.datasets.transforms import compose_like
from mmlt.utils import show_progress


def with_pipeline(dataset, pipeline: Sequence[dict | Callable]):
    """A dataset with other transforms, which loads its pictures as by its own.

    Args:
        dataset (BaseDataset): With a ``pipeline``; it stays as it is.
        pipeline (Sequence[dict | Callable]): Transforms, or configs of them.

    Returns:
        BaseDataset: A shallow copy.
    """
    other = copy.copy(dataset)
    other.pipeline = compose_like(dataset, pipeline)
    return other


@torch.no_grad()
def compute_features(
    model: BaseModel,
    dataset,
    batch_size: int,
    num_workers: int,
    description: str,
    neck: bool = True,
    seed: int = 0,
) -> Tensor:
    """Run a model's backbone over a dataset, in eval mode, each process over its share.

    Random transforms follow ``seed``; the random state outside stays as it is.

    Args:
        model (BaseModel): With ``backbone`` and ``data_preprocessor``, not
            wrapped.
        dataset (Dataset): Its items are those of an MM dataset, with
            ``inputs``.
        batch_size (int): Images a forward pass and process.
        num_workers (int): Processes that load images.
        description (str): Before the progress bar.
        neck (bool): Go through the model's neck, where it has one.
            Defaults to True.
        seed (int): Defaults to 0.

    Returns:
        Tensor: The last feature of every image, shape (N, D), in the order of
        the dataset, on the CPU and the same in all processes.
    """
    sampler = DefaultSampler(dataset, shuffle=False, seed=0)
    loader = DataLoader(
        dataset, batch_size=batch_size, sampler=sampler, num_workers=num_workers, collate_fn=default_collate
    )
    with_neck = neck and getattr(model, 'neck', None) is not None
    was_training = model.training
    model.eval()
    parts = []
    with own_random_state(seed):
        for batch in show_progress(loader, description):
            feats = model.backbone(model.data_preprocessor(batch, False)['inputs'])
            feature = (model.neck(feats) if with_neck else feats)[-1].float().contiguous()
            # Process r of W holds images r, r + W, ...: interleaved, they are in order again.
            parts.append(torch.stack(all_gather(feature), 1).flatten(0, 1).cpu())
    model.train(was_training)
    return torch.cat(parts)[: len(dataset)]  # the sampler padded the end


@contextmanager
def own_random_state(seed: int):
    """Random draws inside follow a seed, and leave those outside as they would have been."""
    python, numpy = random.getstate(), np.random.get_state()
    with torch.random.fork_rng():
        try:
            random.seed(seed)
            np.random.seed(seed % 2**32)
            torch.manual_seed(seed)
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)

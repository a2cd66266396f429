"""Training on features that a frozen backbone computed once."""

from __future__ import annotations

import os
from collections.abc import Iterator

import cv2
import mmcv
import numpy as np
import open_clip
import PIL
import timm
import torch
from mmengine.dist import get_dist_info, is_main_process
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.model import BaseModel
from mmpretrain.structures import DataSample
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from mmlt.checkpoints import whole_file
from mmlt.engine.features import compute_features, with_pipeline
from mmlt.engine.passes import count_epochs
from mmlt.errors import InputError
from mmlt.models import ImageTower
from mmlt.models.classifiers import ZeroShot
from mmlt.registry import HOOKS
from mmlt.utils import digest, object_fingerprint, unwrap
from mmlt.utils.labels import dataset_labels

# Settings of modules that features, which are made in eval mode and without gradients, do not depend on.
_NOT_OF_FEATURES = ('batch_augments', 'frozen', 'init_cfg', 'norm_eval', 'num_classes', 'training')


class FeatureLoader:
    """Batches of cached features in the order of the run's own sampler.

    Args:
        features (Tensor): Shape (V, N, D), V views of N images.
        labels (np.ndarray): Shape (N, ).
        dataloader (DataLoader): The one that is replaced; sampler, batch size,
            dataset and drop_last are taken from it.
        device (torch.device): Where batches go.
        seed (int): Chooses the views.
    """

    def __init__(self, features: Tensor, labels: np.ndarray, dataloader, device, seed: int):
        self.features, self.labels = features, labels
        self.dataset, self.sampler = dataloader.dataset, dataloader.sampler
        self.batch_size, self.drop_last = dataloader.batch_size, dataloader.drop_last
        self.device, self.seed = device, seed
        # Nothing but the label is read in training, so images of a class share one sample.
        self._samples = {
            int(y): DataSample().set_gt_label(torch.tensor([int(y)], device=device)) for y in np.unique(labels)
        }

    def __len__(self) -> int:
        full, rest = divmod(len(self.sampler), self.batch_size)
        return full + (rest > 0 and not self.drop_last)

    def __iter__(self) -> Iterator[dict]:
        order = np.fromiter(self.sampler, dtype=np.int64, count=len(self.sampler))
        views = np.zeros_like(order)
        if len(self.features) > 1:
            # One process's draws; the samplers deal an epoch out in turn, so each process takes its own of them.
            rank, world_size = get_dist_info()
            rng = np.random.default_rng([self.seed, getattr(self.sampler, 'epoch', 0), 0])
            views = rng.integers(len(self.features), size=len(order) * world_size)[rank::world_size]
        for i in range(len(self)):
            part = slice(i * self.batch_size, (i + 1) * self.batch_size)
            chosen = self.features[torch.from_numpy(views[part]), torch.from_numpy(order[part])]
            yield dict(
                inputs=chosen.to(self.device, torch.float32),
                data_samples=[self._samples[int(y)] for y in self.labels[order[part]]],
            )


@HOOKS.register_module()
class FeatureCacheHook(Hook):
    """Run a frozen backbone once over the training images, then train on its features.

    With a frozen backbone and a deterministic transform the features of an
    image never change; the training is then the same, without the backbone's
    work. The cache lies in the work directory under a key of weights,
    transform, images and settings: with any of them changed, it is made anew.
    Validation and test still see the images.

    Args:
        views (int | str): 1: one view of every image by the transform of the
            test pipeline; k > 1: k random views by the train pipeline, of
            which one is drawn at every draw of the image, not one an epoch:
            a class-aware sampler gives an image of a rare class many times
            an epoch, and without cache each time is another crop; 'epochs':
            as many random views as the training has epochs, also if that is
            one; 0: no cache, images at every step. V views of N images of
            width D take 4 V N D bytes of memory and disk (ImageNet-LT, RN50,
            10 views: 4.7 GB; half with 'float16'). Defaults to 1.
        pipeline (list[dict], optional): Another transform for the views.
            Defaults to None.
        dtype (str): 'float32' or 'float16' (half the size).
            Defaults to 'float32'.
        batch_size (int, optional): Images a forward pass. Defaults to None,
            the train batch size.
        directory (str, optional): Defaults to None, ``<work_dir>/features``.

    Raises:
        InputError: The backbone is not frozen; something else needs the
            pictures in training: mixing, CUE's zero-shot model; or the dataset
            cannot be read with another pipeline.
    """

    # After the checkpoint is loaded and class facts are known, before anything counts iterations.
    priority = 'HIGH'

    def __init__(
        self,
        views: int | str = 1,
        pipeline: list[dict] | None = None,
        dtype: str = 'float32',
        batch_size: int | None = None,
        directory: str | None = None,
    ):
        if views != 'epochs' and (isinstance(views, str) or views < 0):
            raise InputError(
                f"FeatureCacheHook: views is {views!r}; give 0 (no cache), 1, the number of random views, or 'epochs'."
            )
        if dtype not in ('float32', 'float16'):
            raise InputError(f"FeatureCacheHook: dtype is '{dtype}'; choose 'float32' or 'float16'.")
        if batch_size is not None and batch_size < 1:
            raise InputError(
                f'FeatureCacheHook: batch_size is {batch_size}; give at least 1, or None for that of training.'
            )
        self._by_epochs, self.views = views == 'epochs', 0 if isinstance(views, str) else views
        self.pipeline, self.batch_size, self.directory = pipeline, batch_size, directory
        self.random = views != 1  # 'epochs' are views of the train pipeline, also in a training of one epoch
        self.dtype = getattr(torch, dtype)

    def check_run(self, runner) -> None:
        """Whether features can be cached in this run.

        Raises:
            InputError: See the class.
        """
        if self._by_epochs:
            self.views = _epochs(runner)
        if self.views == 0:
            return
        model: BaseModel = unwrap(runner.model)
        _check_pictures_are_not_needed(model)
        backbone = model.backbone
        if getattr(backbone, 'adapters', None) is not None and not backbone.frozen:
            raise InputError(
                "The backbone's adapters are trained, so an image's features change at every step and cannot be "
                'cached: turn the cache off with default_hooks.feature_cache.views=0, or freeze the adapters as well '
                'with model.backbone.frozen=True.'
            )
        if not isinstance(backbone, ImageTower) or not backbone.frozen:
            raise InputError(
                'Cached features need a frozen OpenCLIPVision or TimmViT backbone: set model.backbone.frozen=True, or '
                'turn the cache off with default_hooks.feature_cache.views=0.'
            )
        self._viewed_dataset(runner, runner.train_dataloader.dataset)
        _check_widths(model)

    def before_train(self, runner) -> None:
        """Make or load the cache and put it in place of the train dataloader."""
        self.check_run(runner)
        if self.views == 0:
            return
        model, loader = unwrap(runner.model), runner.train_dataloader
        dataset = self._viewed_dataset(runner, loader.dataset)
        labels = dataset_labels(loader.dataset)
        folder = os.path.join(runner.work_dir, 'features') if self.directory is None else self.directory
        key = self._fingerprint(model, dataset, labels, runner.seed)
        path = os.path.join(folder, f'{key}.safetensors')
        features = _read(path, (self.views, len(labels)))
        if features is None:
            os.makedirs(folder, exist_ok=True)
            features = self._compute(runner, model, dataset, path)
        else:
            runner.logger.info(f'Cached features of {len(labels)} images x {self.views} are read from {path}')
        device = next(model.parameters()).device
        cached = FeatureLoader(features, labels, loader, device, runner.seed)
        runner.train_loop.dataloader = cached
        if hasattr(runner.train_loop, 'dataloader_iterator'):
            runner.train_loop.dataloader_iterator = type(runner.train_loop.dataloader_iterator)(cached)

    def _viewed_dataset(self, runner, dataset):
        """A copy of the dataset that gives the views."""
        if not hasattr(dataset, 'pipeline'):
            raise InputError(
                f'{type(dataset).__name__} has no pipeline of its own that cached features could replace: cache a '
                'plain dataset, or set default_hooks.feature_cache.views=0.'
            )
        pipeline = self.pipeline
        if pipeline is None and not self.random:
            evaluated = runner.cfg.get('test_dataloader') or runner.cfg.get('val_dataloader')
            if evaluated is None:
                raise InputError(
                    'With views=1 the features use the transform of the test pipeline, but the config has no '
                    'test_dataloader: give FeatureCacheHook a pipeline.'
                )
            pipeline = evaluated.dataset.pipeline
        return dataset if pipeline is None else with_pipeline(dataset, pipeline)

    def _fingerprint(self, model, dataset, labels: np.ndarray, seed: int) -> str:
        facts = dict(
            backbone=model.backbone,
            preprocessor=model.data_preprocessor,
            transform=dataset.pipeline,
            views=self.views,
            dtype=str(self.dtype),
            seed=seed if self.random else None,
            versions=[m.__version__ for m in (torch, open_clip, timm, PIL, cv2, mmcv)],
        )
        return digest(object_fingerprint(facts, _NOT_OF_FEATURES), labels, _pictures(dataset, len(labels)))

    def _compute(self, runner, model, dataset, path: str) -> Tensor:
        loader = runner.train_dataloader
        views = [
            compute_features(
                model,
                dataset,
                loader.batch_size if self.batch_size is None else self.batch_size,
                loader.num_workers,
                f'Caching features {view + 1}/{self.views}',
                neck=False,
                seed=(runner.seed or 0) * 1000 + view,
            ).to(self.dtype)
            for view in range(self.views)
        ]
        features = torch.stack(views)
        if is_main_process():
            _write(features, path)
        return features


def _check_pictures_are_not_needed(model) -> None:
    """Features take the pictures' place in training, and only the backbone can do with them."""
    if any(isinstance(module, ZeroShot) for module in model.modules()):
        raise InputError(
            'CUE asks a zero-shot model for the classes of every picture, but cached features would come: set '
            'default_hooks.feature_cache=None, or model.teacher=None and model.head.loss.zero_shot_weight=0.'
        )
    if getattr(model.data_preprocessor, 'batch_augments', None) is not None:
        raise InputError(
            'Cached features cannot be mixed as images are (data_preprocessor.batch_augments): train on images with '
            'default_hooks.feature_cache=None, or without mixing with model.data_preprocessor.batch_augments=None.'
        )


def _epochs(runner) -> int:
    epochs = count_epochs(runner)
    if epochs is None:
        raise InputError(
            "FeatureCacheHook: views='epochs' asks for one view an epoch, but the length of the data is not known: "
            'give a number, default_hooks.feature_cache.views=10.'
        )
    return epochs


@torch.no_grad()
def _check_widths(model) -> None:
    """Widths that disagree show here, not after all images."""
    was_training = model.training
    model.eval()
    feature = torch.zeros(1, model.backbone.out_channels, device=next(model.parameters()).device)
    model.head(model.neck((feature,)) if model.with_neck else (feature,))
    model.train(was_training)


def _pictures(dataset, number: int) -> Iterator[str | np.ndarray]:
    """What tells the pictures of a dataset, for the name of their features."""
    for i in range(number):
        info = dataset.get_data_info(i)
        if 'img_path' not in info:
            yield info['img']
            continue
        yield info['img_path']
        if os.path.exists(info['img_path']):
            stat = os.stat(info['img_path'])
            yield f'{stat.st_size} {stat.st_mtime_ns}'


def _write(features: Tensor, path: str) -> None:
    with whole_file(path) as part:
        save_file({'features': features.contiguous()}, part)


def _read(path: str, shape: tuple[int, int] | None) -> Tensor | None:
    """Features from a file, or None where there is no whole one."""
    if not os.path.exists(path):
        return None
    try:
        with safe_open(path, framework='pt') as f:
            features = f.get_tensor('features')
    except SafetensorError as e:
        print_log(f"The feature cache '{path}' is damaged ({e}) and is made anew.", logger='current', level=30)
        return None
    return features if shape is None or tuple(features.shape[:2]) == shape else None

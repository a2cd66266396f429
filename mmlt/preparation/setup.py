"""What starter configs are written for: data, towers, sizes."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import open_clip
from torch import nn

from mmlt.errors import InputError
from mmlt.models.backbones.adaptformer import add_adapters
from mmlt.models.open_clip_towers import OpenCLIPTowers, carries_weights, is_tag, looks_like_path

# A default schedule: about so many steps, within these bounds on epochs.
_STEPS, _EPOCHS = 1500, (5, 50)


@dataclass
class Setup:
    """What the configs are written for.

    Args:
        name (str): Of the data set, a part of file names.
        num_classes (int): C.
        num_train (int): Training images.
        pictures (str): Folder that the lists' paths are relative to.
        base (str): The folder ``configs/_base_`` of a checkout.
        has_val (bool): Whether there is ``val.txt``; otherwise the test split
            is validated on. Defaults to False.
        class_texts (str, optional): See :class:`ClassTexts`. Defaults to None.
        model (str): An open_clip model. Defaults to 'ViT-B-16'.
        pretrained (str, optional): Tag, or path of a weight file. None for
            ``hf-hub:`` and ``local-dir:`` models, which bring their weights;
            others are then trained from random ones. Defaults to 'openai'.
        image_size (int, optional): Pixels. Defaults to None, the model's own.
        epochs (int, optional): Of every stage. Defaults to None, by the number
            of images.
        batch_size (int): Images a step, at most. Defaults to 64.
        flip (bool): Whether mirrored pictures stay in their class.
            Defaults to True.
        num_workers (int | str): Processes that read pictures. Defaults to
            'auto', by the machine that trains.
        quick_gelu (bool, optional): Whether the model has QuickGELU. Defaults
            to None, the weights decide.
        split_digest (str): Of lists and class names, see
            :func:`split_digest`. Defaults to ''.

    Raises:
        InputError: No such model or weights; weights in a file or folder that
            do not fit the model; fewer than 2 training images.
    """

    name: str
    num_classes: int
    num_train: int
    pictures: str
    base: str
    has_val: bool = False
    class_texts: str | None = None
    model: str = 'ViT-B-16'
    pretrained: str | None = 'openai'
    image_size: int | None = None
    epochs: int | None = None
    batch_size: int = 64
    flip: bool = True
    num_workers: int | str = 'auto'
    quick_gelu: bool | None = None
    split_digest: str = ''

    def __post_init__(self):
        if self.num_train < 2:
            raise InputError(f'There are {self.num_train} training images: at least 2 are needed.')
        for name in ('epochs', 'image_size', 'batch_size'):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise InputError(f'{name} is {getattr(self, name)}; it must be positive.')
        if self.model.startswith('local-dir:'):
            self.model = f'local-dir:{Path(self.model.removeprefix("local-dir:")).resolve()}'
        towers = OpenCLIPTowers(self.model, self.pretrained, self.image_size, self.quick_gelu)
        is_file = self.pretrained is not None and not is_tag(self.model, self.pretrained)
        if is_file:
            if looks_like_path(self.pretrained) and not Path(self.pretrained).is_file():
                raise InputError(f"The weight file '{self.pretrained}' does not exist.")
            self.pretrained = str(Path(self.pretrained).resolve())
        self.embed_dim, self.quick_gelu = towers.embed_dim, towers.quick_gelu
        self.gelu_is_assumed = towers.assumption is not None
        self.pixels = int(np.ravel(towers.clip.visual.image_size)[0])
        self.mean_std = _mean_std(towers)
        self.adaptable = _takes_adapters(towers)
        # Of the feature before the projection, where the tower has one of its own.
        self.width = None if towers.visual_projection is None else len(towers.visual_projection)
        self.has_batch_norm = any(isinstance(m, nn.modules.batchnorm._NormBase) for m in towers.clip.visual.modules())
        if is_file or self.model.startswith('local-dir:'):
            towers.load()  # weights that do not fit are told now; a tag's would have to be fetched
        # Incomplete batches are dropped, so a batch must not be larger than the data.
        self.batch_size = min(self.batch_size, self.num_train)
        if self.epochs is None:
            self.epochs = int(np.clip(round(_STEPS / (self.num_train // self.batch_size)), *_EPOCHS))

    @property
    def scratch(self) -> bool:
        """Whether the towers begin at random weights."""
        return self.pretrained is None and not carries_weights(self.model)

    @property
    def text(self) -> dict:
        """Arguments of the text tower, and of what both towers share."""
        return dict(model=self.model, pretrained=self.pretrained, quick_gelu=self.quick_gelu)

    @property
    def backbone(self) -> dict:
        """Arguments of the image tower. Small batches ask for BatchNorm's statistics as they were pretrained."""
        sizes = {} if self.image_size is None else dict(image_size=self.image_size)
        norm = dict(norm_eval=True) if self.has_batch_norm and not self.scratch else {}
        return {**self.text, **sizes, **norm}

    @property
    def teacher(self) -> dict | None:
        """Arguments of CVLP's teacher: the pretrained model, where there is one."""
        if self.scratch:
            return None
        return {k: v for k, v in self.backbone.items() if k != 'norm_eval'}

    @property
    def preprocessor(self) -> dict:
        """What pretrained weights say of mean and deviation where it is not CLIP's."""
        return dict(data_preprocessor=self.mean_std) if self.mean_std else {}

    def bases(self, model: str, schedule: str | None) -> list[str]:
        """The config's bases: model and schedule by their names in ``_base_``, data, runtime."""
        files = [f'models/{model}.py', f'schedules/{schedule}.py' if schedule else None, 'default_runtime.py']
        return [f'./dataset_{self.name}.py', *(f'{self.base}/{f}' for f in files if f)]

    def schedule(self, lr: float | None, epochs: int | None = None, **optim_wrapper) -> dict:
        """Length and learning rate of a stage; a learning rate of None is that of the base."""
        epochs = self.epochs if epochs is None else epochs
        interval = max(1, epochs // 5)
        rate = {} if lr is None else dict(optimizer=dict(lr=lr))
        return dict(
            max_epochs=epochs,
            train_cfg=dict(max_epochs=epochs, val_interval=interval),
            default_hooks=dict(checkpoint=dict(interval=interval)),
            **(dict(optim_wrapper={**rate, **optim_wrapper}) if rate or optim_wrapper else {}),
        )

    @property
    def cache(self) -> dict:
        """A frozen image tower sees each image in so many random views, once."""
        return dict(feature_cache=dict(type='mmlt.FeatureCacheHook', views=min(10, self.epochs)))


def _mean_std(towers: OpenCLIPTowers) -> dict:
    """Mean and deviation of the pretraining in 0..255 by the tag or the model's folder; empty where they don't tell."""
    facts = {}
    if towers.pretrained is not None and is_tag(towers.model, towers.pretrained):
        facts = open_clip.get_pretrained_cfg(towers.model, towers.pretrained)
    elif carries_weights(towers.model):
        facts = towers.clip.visual.preprocess_cfg
    return {k: [round(255 * x, 4) for x in facts[k]] for k in ('mean', 'std') if facts.get(k)}


def _takes_adapters(towers: OpenCLIPTowers) -> bool:
    try:
        add_adapters(copy.deepcopy(towers.clip.visual), dict(type='mmlt.AdaptFormer', bottleneck=1), towers.model)
    except InputError:
        return False
    return True

"""Ready configs for one's own data: every method at a size that suits it."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable
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


def dataset_config(setup: Setup) -> dict:
    """The data: lists and class names beside the config, pictures where they are."""
    pixels = setup.pixels
    crop = dict(type='mmlt.RandomResizedCrop', scale=pixels, crop_ratio_range=(0.5, 1.0))
    resize = dict(backend='pillow', interpolation='bicubic')
    load, pack = dict(type='mmlt.LoadPicture'), dict(type='PackInputs')
    flip = [dict(type='mmlt.RandomFlip', prob=0.5, direction='horizontal')] if setup.flip else []
    jitter = dict(type='mmlt.ColorJitter', brightness=0.4, contrast=0.4, saturation=0.4)
    edge = dict(type='ResizeEdge', scale=pixels, edge='short', **resize)
    data = dict(
        type='mmlt.LongTailedDataset',
        data_root='{{ fileDirname }}',
        data_prefix=setup.pictures,
        classes='classes.txt',
        class_texts=setup.class_texts,
    )

    def loader(split: str) -> dict:
        train = split == 'train'
        lists = dict(ann_file=f'{split}.txt', **({} if train else dict(train_ann_file='train.txt')))
        pipeline = (
            [load, {**crop, **resize}, *flip, jitter, pack]
            if train
            else [load, edge, dict(type='CenterCrop', crop_size=pixels), pack]
        )
        return dict(
            batch_size=setup.batch_size,
            num_workers=setup.num_workers,
            dataset={**data, **lists, 'pipeline': pipeline},
            sampler=dict(type='DefaultSampler', shuffle=train),
            **(dict(drop_last=True) if train else {}),
        )

    # --tta: five crops, LIFT's sizes in proportion.
    larger = dict(edge, scale=round(pixels * 248 / 224))
    corners = ('top-left', 'top-right', 'bottom-left', 'bottom-right', 'centre')
    crops = [dict(type='mmlt.FiveCropPart', crop_size=pixels, position=p) for p in corners]
    metric = [dict(type='mmlt.ShotAccuracy')]
    return dict(
        train_dataloader=loader('train'),
        val_dataloader=loader('val' if setup.has_val else 'test'),
        test_dataloader=loader('test'),
        val_evaluator=metric,
        test_evaluator=metric,
        tta_model=dict(type='mmlt.LogitTTA'),
        tta_pipeline=[load, larger, dict(type='TestTimeAug', transforms=[crops, [pack]])],
    )


def _sampler(kind: str) -> dict:
    return dict(train_dataloader=dict(sampler=dict(_delete_=True, type=kind)))


def vlltr_configs(setup: Setup) -> dict[str, tuple[str, dict]]:
    """VL-LTR: class-wise pretraining, anchor sentences, LGR head.

    A pretrained image tower is frozen in stage 2, as in the published code:
    its paper's learning rate is for batches of 1,024.
    """
    scratch = setup.scratch
    model = dict(backbone=setup.backbone, text=setup.text, teacher=setup.teacher, **setup.preprocessor)
    first = dict(
        _base_=setup.bases('cvlp_clip_rn50_paper', 'vlltr_cvlp_paper'),
        model={**model, **(dict(ratio=1) if scratch else {})},
        **_sampler('mmlt.SquareRootSampler'),
        **setup.schedule(5e-4 if scratch else 1e-5),
    )
    first['default_hooks']['anchors'] = dict(type='mmlt.AnchorSelectionHook', num_anchors=64)
    tower = {**setup.backbone, 'pretrained': None, **({} if scratch else dict(frozen=True))}
    second = dict(
        _base_=setup.bases('lgr_clip_rn50_paper', 'vlltr_lgr_paper'),
        stages=dict(cvlp=dict(config=f'vlltr_{setup.name}_cvlp.py', load_from=True)),
        model=dict(
            backbone=tower,
            head=dict(num_classes=setup.num_classes, in_channels=setup.embed_dim),
            **setup.preprocessor,
        ),
        **_sampler('mmlt.SquareRootSampler'),
        **setup.schedule(5e-4 if scratch else None),
    )
    if not scratch:
        second['default_hooks'].update(setup.cache)
    return {
        f'vlltr_{setup.name}': ('VL-LTR: class-wise pretraining, anchor sentences, then the LGR head.', second),
        f'vlltr_{setup.name}_cvlp': ('VL-LTR stage 1: class-wise pretraining, then anchor selection.', first),
    }


def ballad_configs(setup: Setup) -> dict[str, tuple[str, dict]]:
    """BALLAD: both towers fine-tuned, then a class-balanced adapter on them."""
    scratch = setup.scratch
    first = dict(
        _base_=setup.bases('clip_rn50', 'tiny' if scratch else 'ballad_phase-a'),
        model=dict(backbone=setup.backbone, head=dict(text=setup.text), **setup.preprocessor),
        **setup.schedule(None),
    )
    second = dict(
        _base_=setup.bases('clip_rn50', 'ballad_phase-b'),
        stages=dict(phase_a=dict(config=f'ballad_{setup.name}_phase-a.py', load_from=True)),
        model=dict(
            backbone={**setup.backbone, 'pretrained': None, 'frozen': True},
            neck=dict(type='mmlt.BalancedLinearAdapter', in_channels=setup.embed_dim, ratio=0.2),
            head=dict(text={**setup.text, 'pretrained': None, 'frozen': True}),
            **setup.preprocessor,
        ),
        **_sampler('mmlt.ClassBalancedSampler'),
        **setup.schedule(None, min(10, setup.epochs)),
    )
    second['default_hooks'].update(setup.cache)
    return {
        f'ballad_{setup.name}': ('BALLAD: phase A, then a linear adapter with class-balanced sampling.', second),
        f'ballad_{setup.name}_phase-a': ('BALLAD phase A: both towers are fine-tuned on the data as it comes.', first),
    }


def ce_configs(setup: Setup) -> dict[str, tuple[str, dict]]:
    """Cross entropy: a linear classifier on the image tower, both trained."""
    scratch = setup.scratch
    head = dict(_delete_=True, type='LinearClsHead', num_classes=setup.num_classes, in_channels=setup.embed_dim)
    slow_tower = dict(paramwise_cfg=dict(custom_keys=dict(backbone=dict(lr_mult=0.01))))
    config = dict(
        _base_=setup.bases('clip_rn50', 'tiny' if scratch else 'vlltr_lgr_paper'),
        model=dict(backbone=setup.backbone, head=head, **setup.preprocessor),
        **setup.schedule(1e-3, **({} if scratch else slow_tower)),
    )
    return {f'ce_{setup.name}': ('Cross entropy: a linear classifier on the image tower, both trained.', config)}


def zeroshot_configs(setup: Setup) -> dict[str, tuple[str, dict]]:
    """The pretrained model as it is; nothing for random weights, which know nothing."""
    if setup.scratch:
        return {}
    config = dict(
        _base_=setup.bases('clip_rn50', None),
        model=dict(backbone=setup.backbone, head=dict(text=setup.text), **setup.preprocessor),
        train_dataloader=None,
        val_dataloader=None,
        val_evaluator=None,
        test_cfg=dict(),
    )
    return {f'zeroshot_{setup.name}': ('The pretrained model as it is; nothing is trained.', config)}


def lift_configs(setup: Setup) -> dict[str, tuple[str, dict]]:
    """LIFT: adapters in the frozen tower; nothing for random weights, or for a tower without transformer blocks."""
    if setup.scratch or not setup.adaptable:
        return {}
    adapter = dict(type='mmlt.AdaptFormer', num_classes=setup.num_classes)
    backbone, head = {**setup.backbone, 'adapter': adapter}, dict(num_classes=setup.num_classes, text=setup.text)
    if setup.width is None:
        backbone['projection'] = head['projected'] = True
    config = dict(
        _base_=setup.bases('lift_clip_vit-b16', 'lift'),
        model=dict(
            backbone=backbone, head=dict(in_channels=setup.width or setup.embed_dim, **head), **setup.preprocessor
        ),
        **setup.schedule(None),
    )
    return {f'lift_{setup.name}': ('LIFT: adapters in the frozen image tower, a cosine head from class texts.', config)}


# All configs that the methods write, with {} for the data set's name.
CONFIGS = ('vlltr_{}', 'vlltr_{}_cvlp', 'ballad_{}', 'ballad_{}_phase-a', 'lift_{}', 'ce_{}', 'zeroshot_{}')

# A further method is a function more: setup in, configs with their comments out.
METHODS: dict[str, Callable[[Setup], dict[str, tuple[str, dict]]]] = {
    'vlltr': vlltr_configs,
    'ballad': ballad_configs,
    'lift': lift_configs,
    'ce': ce_configs,
    'zeroshot': zeroshot_configs,
}


def left_out(setup: Setup) -> list[str]:
    """Which methods have no config, and why, a sentence each."""
    if setup.scratch:
        return ['No configs for LIFT and zero-shot: they need pretrained weights, see --pretrained.']
    if not setup.adaptable:
        return [f"No config for LIFT: its adapters need a Vision Transformer, and '{setup.model}' has none."]
    return []


def format_value(value, indent: int = 0, width: int = 100) -> str:
    """A config value as Python text, broken into lines where it is long.

    Args:
        value: Made of dicts, lists, strings, numbers, None.
        indent (int): Of its last line. Defaults to 0.
        width (int): Characters a line, as far as it can be broken.
            Defaults to 100.

    Returns:
        str: Evaluates to an equal value.
    """
    if isinstance(value, dict):
        start, end, prefixes, values = 'dict(', ')', [f'{key}=' for key in value], list(value.values())
    elif isinstance(value, list):
        start, end, prefixes, values = '[', ']', [''] * len(value), value
    else:
        return repr(value)
    flat = start + ', '.join(p + format_value(v, width=10**6) for p, v in zip(prefixes, values)) + end
    if len(flat) + indent <= width:
        return flat
    pad = ' ' * (indent + 4)
    lines = [f'{pad}{p}{format_value(v, indent + 4, width)},\n' for p, v in zip(prefixes, values)]
    return f'{start}\n{"".join(lines)}{" " * indent}{end}'


def format_config(comment: str, config: dict) -> str:
    """Text of a config file.

    Args:
        comment (str): Its first lines.
        config (dict): Its variables.

    Returns:
        str: Python.
    """
    lines = [f'# {line}' for line in comment.splitlines()]
    return '\n'.join([*lines, *(f'{key} = {format_value(value)}' for key, value in config.items()), ''])


def split_digest(lists: dict[str, str]) -> str:
    """A short name of a split, which another picture, label or class name in it would change.

    Args:
        lists (dict[str, str]): File names and texts; nothing in them depends
            on the machine.

    Returns:
        str: Hexadecimal digits.
    """
    return hashlib.sha256(repr(sorted(lists.items())).encode()).hexdigest()[:16]


def earlier_configs(folder: Path, name: str) -> list[Path]:
    """Configs that were written into a folder for a data set of this name; others on the same data stay.

    Args:
        folder (Path): It may not exist.
        name (str): Of the data set.

    Returns:
        list[Path]: ``dataset_<name>.py``, and configs of methods that inherit
        from it.
    """
    found = [folder / f'{config.format(name)}.py' for config in CONFIGS]
    base = f"'./dataset_{name}.py'"
    own = [path for path in found if path.is_file() and base in path.read_text('utf-8', 'replace')]
    return [path for path in (folder / f'dataset_{name}.py', *own) if path.is_file()]


def starter_configs(setup: Setup, comment: str) -> dict[str, str]:
    """All configs for a data set.

    Args:
        setup (Setup): What they are written for.
        comment (str): First line of the data config, how it was made.

    Returns:
        dict[str, str]: File names and texts; ``dataset_<name>.py``, and the
        configs of every method of ``METHODS``.
    """
    data = format_config(comment, dataset_config(setup))
    if setup.split_digest:
        # The lists keep their names in another split, so the configs alone would not tell.
        data += (
            '\n# Of the lists: with others, train.py does not go on with, or test, what was trained on these.\n'
            f'split_digest = {setup.split_digest!r}\n'
        )
    texts = {f'dataset_{setup.name}.py': data}
    for method in METHODS.values():
        for name, (what, config) in method(setup).items():
            texts[f'{name}.py'] = format_config(what, config)
    return texts

"""Ready configs for one's own data: every method at a size that suits it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

from mmlt.preparation.setup import Setup


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

    metric = [dict(type='mmlt.ShotAccuracy')]
    return dict(
        train_dataloader=loader('train'),
        val_dataloader=loader('val' if setup.has_val else 'test'),
        test_dataloader=loader('test'),
        val_evaluator=metric,
        test_evaluator=metric,
        tta_model=dict(type='mmlt.LogitTTA'),
        tta_pipeline=_five_crops(load, edge, pack, pixels),
    )


def _five_crops(load: dict, edge: dict, pack: dict, pixels: int) -> list[dict]:
    """--tta: LIFT's sizes in proportion."""
    larger = dict(edge, scale=round(pixels * 248 / 224))
    corners = ('top-left', 'top-right', 'bottom-left', 'bottom-right', 'centre')
    crops = [dict(type='mmlt.FiveCropPart', crop_size=pixels, position=p) for p in corners]
    return [load, larger, dict(type='TestTimeAug', transforms=[crops, [pack]])]


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
        model={**model, **(dict(loss_ratio=1) if scratch else {})},
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
            neck=dict(type='mmlt.BalancedLinearAdapter', in_channels=setup.embed_dim, residual_ratio=0.2),
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

"""From pictures of one's own to a long-tailed data set with ready configs."""

from __future__ import annotations

import os.path as osp
import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mmlt.checkpoints import write_text
from mmlt.datasets.texts.class_texts import ClassTexts
from mmlt.errors import InputError
from mmlt.models.open_clip_towers import carries_weights
from mmlt.preparation.own_pictures import (
    artificial_tail,
    balanced_split,
    default_test_size,
    inspect_pictures,
    list_text,
    listing,
    prompt_names,
)
from mmlt.preparation.picture_sources import read_source
from mmlt.preparation.starter_configs import Settings, earlier_configs, left_out, split_digest, starter_configs
from mmlt.preparation.towers import TowerFacts, probe
from mmlt.visualization import class_size_report, plot_class_sizes, print_class_sizes


@dataclass
class PrepareOptions:
    """What is to be made of which pictures; see ``mmlt prepare --help``.

    Args:
        source (list[str]): One folder, table, annotation or list.
        out (str): Folder for lists and configs.
        base (str): The folder ``configs/_base_`` of mmlt.
    """

    source: list[str]
    out: str
    base: str
    name: str | None = None
    root: str | None = None
    test_per_class: int | None = None
    val_per_class: int = 0
    tail_ratio: float | None = None
    seed: int = 0
    class_names: str | None = None
    texts: str | None = None
    skip_unreadable: bool = False
    model: str = 'ViT-B-16'
    pretrained: str | None = None
    quick_gelu: bool | None = None
    image_size: int | None = None
    epochs: int | None = None
    batch_size: int = 64
    no_flip: bool = False
    overwrite: bool = False


def check_args(args: PrepareOptions) -> str:
    """Check what costs no time; return the name of the data set."""
    if len(args.source) > 1:
        raise InputError(
            f'There are {len(args.source)} sources, {listing(args.source)}: give one. Of a train/ and a test/ folder, '
            f"that is the folder in which they lie, '{osp.commonpath(list(map(osp.abspath, args.source)))}'."
        )
    (source,) = args.source
    out = osp.abspath(args.out)
    if osp.isdir(source) and osp.commonpath([out, osp.abspath(source)]) == osp.abspath(source):
        raise InputError(f"--out '{args.out}' lies in the folder of the pictures: choose another.")
    if osp.exists(osp.join(out, 'train.txt')) and not args.overwrite:
        raise InputError(f"'{args.out}' holds a data set already: choose another --out, or --overwrite it.")
    if args.test_per_class is not None and args.test_per_class < 1:
        raise InputError(f'--test-per-class is {args.test_per_class}; there must be at least one test picture a class.')
    if args.val_per_class < 0:
        raise InputError(f'--val-per-class is {args.val_per_class}; give 0 for no validation pictures, or more.')
    if args.tail_ratio is not None and not args.tail_ratio >= 1:  # also for nan
        raise InputError(f'--tail-ratio is {args.tail_ratio:g}; it is largest over smallest class, so at least 1.')
    if args.seed < 0:
        raise InputError(f'--seed is {args.seed}; give 0 or more.')
    name = re.sub(r'[^A-Za-z0-9-]+', '-', args.name or osp.basename(out)).strip('-')
    if not name:
        raise InputError(f"'{args.name or args.out}' has no letters for a name of the data set: give --name.")
    return name


def pretrained_of(args: PrepareOptions) -> str | None:
    """What the towers start from besides what ``--model`` brings."""
    if args.pretrained is None:
        return None if carries_weights(args.model) else 'openai'
    if args.pretrained.lower() == 'none':
        return None
    if carries_weights(args.model):
        raise InputError(f"--model '{args.model}' brings its weights: leave out --pretrained '{args.pretrained}'.")
    return args.pretrained


def given_splits(pictures, args: PrepareOptions) -> dict[str, np.ndarray]:
    """The splits of the source as they are; without one to test on, that for validation is it."""
    splits = {split: np.flatnonzero(pictures.splits == split) for split in ('train', 'val', 'test')}
    if args.test_per_class is not None:
        raise InputError(f"'{args.source[0]}' has its splits already: leave out --test-per-class.")
    if not len(splits['test']):
        splits['test'], splits['val'] = splits['val'], splits['test']
        pictures.notes.append('There is no test split: that for validation is tested on.')
    if args.val_per_class:
        if len(splits['val']):
            raise InputError(f"'{args.source[0]}' has a split for validation already: leave out --val-per-class.")
        train = splits['train']
        parts = balanced_split(pictures.labels[train], 0, args.val_per_class, args.seed)
        splits['train'], splits['val'] = train[parts['train']], train[parts['val']]
    sizes = ', '.join(f'{len(own):,} to {split}' for split, own in splits.items() if len(own))
    pictures.notes.append(f'The splits are those of the source: {sizes}.')
    if lost := [pictures.classes[c] for c in sorted(set(pictures.labels) - set(pictures.labels[splits['train']]))]:
        raise InputError(
            f'{len(lost)} classes have no picture to train on, {listing(lost)}: all that they had are copies of '
            'pictures in other splits, or cannot be read.'
        )
    return splits


def split_notes(counts, names, test: int, val: int) -> list[str]:
    """What is to be said about the classes that are too small for the split."""
    notes = [f'{test} test pictures a class' + (f', {val} for validation.' if val else '.')]
    single = [n for n, c in zip(names, counts['test']) if c == 0]
    fewer = [n for n, c in zip(names, counts['test']) if 0 < c < test]
    if fewer:
        notes.append(
            f'{len(fewer):,} classes have fewer test pictures, since half of a class stays in training: '
            f'{listing(fewer)}.'
        )
    if single:
        notes.append(
            f'{len(single):,} classes have a single picture, which is trained on and cannot be tested: '
            f'{listing(single)}.'
        )
    return notes


def split_pictures(pictures, args: PrepareOptions) -> dict[str, np.ndarray]:
    """Indices of the pictures of every split: those of the source, or a seeded one, with the tail that is asked for."""
    labels = pictures.labels
    if pictures.splits is None:
        splits = balanced_split(labels, _test_size(labels, args), args.val_per_class, args.seed)
    else:
        splits = given_splits(pictures, args)
    if not len(splits['test']):
        raise InputError('Every class has a single picture, so nothing can be split off for a test: add pictures.')
    if args.tail_ratio is not None:
        train = splits['train']
        splits['train'] = train[artificial_tail(labels[train], len(pictures.classes), args.tail_ratio, args.seed)]
    return splits


def _test_size(labels: np.ndarray, args: PrepareOptions) -> int:
    return default_test_size(np.bincount(labels)) if args.test_per_class is None else args.test_per_class


def _lists(pictures, splits: dict[str, np.ndarray], names) -> dict[str, str]:
    """File names and texts."""
    lists = {
        f'{split}.txt': list_text([pictures.files[i] for i in part], pictures.labels[part])
        for split, part in splits.items()
        if len(part)
    }
    return {**lists, 'classes.txt': '\n'.join(names) + '\n'}


def _settings(name: str, names, pictures, splits: dict, lists: dict[str, str], args: PrepareOptions) -> Settings:
    return Settings(
        name,
        len(names),
        len(splits['train']),
        pictures.root,
        args.base,
        probe(args.model, pretrained_of(args), args.image_size, args.quick_gelu),
        has_val=bool(len(splits['val'])),
        class_texts=args.texts and osp.abspath(args.texts),
        epochs=args.epochs,
        batch_size=args.batch_size,
        flip=not args.no_flip,
        split_digest=split_digest(lists),
    )


def _draw_sizes(counts: np.ndarray, names, path: Path, name: str) -> tuple[dict, list[str]]:
    """Draw and print the class sizes; return their report, and what is to be said of the picture."""
    report = class_size_report(counts.tolist(), names)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter('always')
        plot_class_sizes(report, path, name)
    print_class_sizes(report, name)
    if any('missing from' in str(w.message) for w in caught):  # one for every letter
        return report, ['class_sizes.png has boxes where its font lacks a letter; nothing else is affected.']
    return report, []


def prepare(
    args: PrepareOptions,
    command: str = '',
    check: Callable[[Settings], None] = lambda settings: None,
    tell: Callable[[str], None] = print,
) -> list[str]:
    """Write lists, class names, a picture of the class sizes, and a config for every method.

    Args:
        args (PrepareOptions): See there.
        command (str): How it was asked for, noted in the data config.
            Defaults to ''.
        check (Callable): Is given the settings before anything is written,
            and may raise. Defaults to one that does nothing.
        tell (Callable): Takes what is to be said. Defaults to ``print``.

    Returns:
        list[str]: Paths of the configs.

    Raises:
        InputError: Something is wrong with the pictures or the options.
    """
    name = check_args(args)
    pictures = read_source(args.source[0], args.root)
    names = prompt_names(pictures.classes, args.class_names)
    if args.texts is not None:
        ClassTexts(templates='clip').read(names, osp.abspath(args.texts))  # their faults show now, not in the training
    inspect_pictures(pictures, args.skip_unreadable)
    labels, splits = pictures.labels, split_pictures(pictures, args)
    lists = _lists(pictures, splits, names)
    settings = _settings(name, names, pictures, splits, lists, args)
    check(settings)
    configs = starter_configs(settings, command)
    out = Path(args.out)
    out.mkdir(parents=True, exist_ok=True)
    for path in (out / 'val.txt', *earlier_configs(out, name)):  # of an earlier result; there may be fewer now
        path.unlink(missing_ok=True)
    for file, text in {**lists, **configs}.items():
        write_text(out / file, text)
    counts = {split: np.bincount(labels[part], minlength=len(names)) for split, part in splits.items()}
    report, notes = _draw_sizes(counts['train'], names, out / 'class_sizes.png', name)
    own = (
        [] if pictures.splits is not None else split_notes(counts, names, _test_size(labels, args), args.val_per_class)
    )
    missing = dict.fromkeys(left_out(settings.tower).values())  # a reason of several methods once
    for note in (*pictures.notes, *notes, *_ratio_notes(settings.tower, report, args), *own, *missing):
        tell(note)
    renamed = [f'{key} -> {n}' for key, n in zip(pictures.classes, names) if key != n]
    if renamed:
        tell(f'Names in prompts: {", ".join(renamed[:8])}{", ..." if len(renamed) > 8 else ""}')
    tell(f'Lists, class_sizes.png and configs are in {args.out}: {", ".join(sorted(configs))}')
    return [osp.join(args.out, file) for file in sorted(configs)]


def _ratio_notes(tower: TowerFacts, report: dict, args: PrepareOptions) -> list[str]:
    notes = []
    if tower.gelu_is_assumed:
        notes.append('The weights do not tell their activation: if it is QuickGELU, give --quick-gelu.')
    if args.tail_ratio is not None and abs(report['ratio'] / args.tail_ratio - 1) > 0.1:
        notes.append(
            f'The ratio is {report["ratio"]:.1f} in place of {args.tail_ratio:g}: the sizes of small classes are '
            'rounded down to whole pictures.'
        )
    return notes

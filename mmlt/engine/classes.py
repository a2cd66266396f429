"""Classes and their training counts, from the built datasets to all that need them."""

from __future__ import annotations

import functools

from mmengine.logging import print_log
from mmengine.model import BaseModel
from mmengine.runner.base_loop import BaseLoop
from mmpretrain.models.heads import ClsHead, MultiTaskHead
from torch import nn

from mmlt.datasets.texts.class_names import is_published
from mmlt.errors import InputError
from mmlt.models.compositions import check_composition
from mmlt.utils import unwrap
from mmlt.utils.class_info import ClassInfo, class_info
from mmlt.utils.classes import check_same_classes, check_twins, find_twins
from mmlt.utils.labels import read_labels


def built_datasets(runner) -> dict:
    """Datasets of the loops that a runner has built, by 'train', 'val' and 'test'."""
    loops = {name: getattr(runner, f'_{name}_loop', None) for name in ('train', 'val', 'test')}
    return {name: loop.dataloader.dataset for name, loop in loops.items() if isinstance(loop, BaseLoop)}


def tell_classes(runner, modules: bool = True, split: str = 'train') -> None:
    """Compare the class lists of all datasets and the head, and tell who asks.

    Metrics and, if wanted, modules with ``set_class_info(info)`` are told.
    Counts are those of the built train dataset, see :func:`class_info`; where
    nothing is trained, those that the evaluated dataset knows of its train
    list.

    Args:
        runner (Runner): With the loops that it has built.
        modules (bool): Whether the model is told. Defaults to True.
        split (str): Whose classes the model has, see :class:`ClassInfoHook`.
            Defaults to 'train'.

    Raises:
        InputError: Datasets or head have different classes, or two classes of
            one name; a module asks for classes that the dataset does not tell;
            parts that are not to be trained together, see
            :func:`check_composition`.
    """
    datasets = built_datasets(runner)
    model: BaseModel = unwrap(runner.model)
    metas = {name: getattr(dataset, 'metainfo', None) or {} for name, dataset in datasets.items()}
    order = ('train', 'val', 'test') if split == 'train' else ('val', 'test')
    own = next((name for name in order if name in metas), None)
    if own is None:
        return
    if split == 'train':
        check_same_classes({name: meta.get('classes') for name, meta in metas.items()})
    for name, meta in metas.items():
        check_names(meta.get('classes') or (), datasets[name], f'The {name} dataset')
    _check_heads(model, metas[own].get('classes'))
    asking = [m for m in model.modules() if hasattr(m, 'set_class_info')] if modules else []
    metrics = _metrics(runner)
    if own == 'train':
        _check_scored(model, datasets[own])
        check_composition(model, bool(getattr(runner, '_load_from', None) or getattr(runner, '_resume', False)))
    if not asking and not metrics:
        return
    info = class_info(datasets[own], trains=own == 'train')
    if asking and not info.classes:
        raise InputError('The dataset tells no class names (metainfo has no classes): give it classes=[...].')
    if own == 'train':
        _correct_meta(datasets[own], info)
        asking += metrics
    for part in asking:
        part.set_class_info(info)


def check_names(classes, dataset, where: str) -> None:
    """Refuse two classes of one name; of a published list, such as ImageNet's, only tell it.

    Args:
        classes (Sequence[str]): C class names.
        dataset (Dataset | None): Whose they are.
        where (str): What to name.

    Raises:
        InputError: There are two.
    """
    if (twins := find_twins(classes)) is None:
        return
    if not is_published(classes, dataset):
        check_twins(classes, where)
    _tell_twins(*twins, str(classes[twins[0]]))


@functools.cache
def _tell_twins(first: int, second: int, name: str) -> None:
    print_log(
        f"The published class list has one name for two classes ({first} and {second} are both '{name}'): text heads "
        'cannot tell them apart, and their figures count that.',
        logger='current',
    )


def _check_heads(model: nn.Module, classes) -> None:
    parts = list(model.modules())
    if not classes or any(isinstance(m, MultiTaskHead) for m in parts):
        return
    info = ClassInfo(classes)
    for head in parts:
        number = getattr(head, 'num_classes', None) if isinstance(head, ClsHead) else None
        if isinstance(number, int):
            info.check_number(number)


def _check_scored(model: nn.Module, dataset) -> None:
    """A single-label loss of MMPretrain's does not know labels that are not to be scored."""
    foreign = [
        loss
        for m in model.modules()
        if isinstance(m, ClsHead) and isinstance(loss := getattr(m, 'loss_module', None), nn.Module)
        if not type(loss).__module__.startswith('mmlt.')
    ]
    if not foreign:
        return
    try:
        table = read_labels(dataset)
    except InputError:
        return
    if not table.several and (table.labels < 0).any():
        first = int((table.labels < 0).argmax())
        raise InputError(
            f'Entry {first + 1} of the train dataset has the label {table.labels[first]}, not to be scored, which '
            f"{type(foreign[0]).__name__} does not know: leave such images out, or use a loss of mmlt's."
        )


def _metrics(runner) -> list:
    evaluators = (getattr(getattr(runner, f'_{name}_loop', None), 'evaluator', None) for name in ('val', 'test'))
    metrics = [m for evaluator in evaluators for m in getattr(evaluator, 'metrics', ())]
    return [m for m in metrics if hasattr(m, 'set_class_info')]


def _correct_meta(dataset, info: ClassInfo) -> None:
    """What a wrapper hands on of a list is not what it holds; checkpoints keep the metainfo."""
    own = getattr(dataset, '_metainfo', None)
    for key, value in (('class_counts', info.counts), ('num_train_images', info.num_images)):
        if isinstance(own, dict) and key in own and value is not None:
            own[key] = list(value) if isinstance(value, tuple) else value

"""Neighbour classes: a JSON file of class names, and the table of indices that it becomes."""

from __future__ import annotations

import difflib
import os.path as osp
from collections import Counter
from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from mmlt.errors import InputError
from mmlt.utils.text_files import read_json

_ROWS = 512  # of the matrix of all cosines, at a time


def read_neighbours(neighbours: str | Mapping[str, Sequence[str]]) -> Mapping[str, Sequence[str]]:
    """Neighbour classes by the names of the classes.

    Args:
        neighbours (str | Mapping[str, Sequence[str]]): A JSON file with one
            object, ``{"tiger": ["lion", "leopard"], ...}``, or the mapping.

    Returns:
        Mapping[str, Sequence[str]]: Names of the neighbours.

    Raises:
        InputError: No such file, no JSON, or not names and lists of names.
    """
    where = 'The mapping of neighbour classes'
    if isinstance(neighbours, str):
        where = f"The file of neighbour classes '{neighbours}'"
        if not osp.isfile(neighbours):
            raise InputError(f'{where} does not exist: write it, or let mmlt neighbours write it from the class texts.')
        neighbours = read_json(neighbours)
    if not isinstance(neighbours, Mapping):
        raise InputError(
            f'{where} holds no classes: it maps class names to lists of class names, {{"class": ["class", ...], ...}}.'
        )
    for name, others in neighbours.items():
        if not isinstance(others, (list, tuple)) or not all(isinstance(other, str) for other in others):
            raise InputError(f"{where}: what '{name}' is given is no list of class names.")
    return neighbours


def neighbour_table(neighbours: Mapping[str, Sequence[str]], classes: Sequence[str]) -> Tensor:
    """Indices of the neighbours of every class.

    A class that is not in the mapping has none. Names are compared with
    underscores as spaces. Of a published class list with one name for two
    classes a name means both, and they are neighbours of each other, as in
    CUE's published code.

    Args:
        neighbours (Mapping[str, Sequence[str]]): See :func:`read_neighbours`.
        classes (Sequence[str]): C class names.

    Returns:
        Tensor: Shape (C, M) with M the largest number of neighbours; what is
        left of a row is filled with the class itself.

    Raises:
        InputError: A name that is no class, the class itself among its
            neighbours, or a name twice. Names the first, and how many there
            are.
    """
    places: dict[str, list[int]] = {}
    for i, name in enumerate(classes):
        places.setdefault(_plain(name), []).append(i)
    _check_names(neighbours, places)
    rows = [[j for j in places[_plain(name)] if j != i] for i, name in enumerate(classes)]
    for name, others in neighbours.items():
        for i in places[_plain(name)]:
            rows[i] += [j for other in others for j in places[_plain(other)]]
    width = max(map(len, rows), default=0)
    return torch.tensor([row + [i] * (width - len(row)) for i, row in enumerate(rows)]).long().view(len(rows), width)


def _plain(name: str) -> str:
    return ' '.join(str(name).replace('_', ' ').split())


def _check_names(neighbours: Mapping[str, Sequence[str]], places: Mapping[str, list[int]]) -> None:
    """Refuse names that mean nothing; a file of a language model has several, so it is said how many."""
    mistakes: list[tuple[str, str | None]] = []  # what is wrong, and the name that is no class's
    met: set[str] = set()
    for name, others in neighbours.items():
        key = _plain(name)
        if key not in places:
            mistakes.append((f"have an entry for '{name}'", key))
        elif key in met:
            mistakes.append((f"have two entries for '{name}': make them one", None))
        met.add(key)
        keys = [_plain(other) for other in others]
        for position, (other, other_key) in enumerate(zip(others, keys)):
            if other_key not in places:
                mistakes.append((f"give '{name}' the neighbour '{other}'", other_key))
            elif other_key == key:
                mistakes.append((f"give '{name}' itself as a neighbour: take it out", None))
            elif other_key in keys[:position]:
                mistakes.append((f"give '{name}' the neighbour '{other}' twice: take one out", None))
    if not mistakes:
        return
    first, unknown = mistakes[0]
    if unknown is not None:  # the nearest is looked for once: it takes as long as all the rest
        near = difflib.get_close_matches(unknown, places, 1)
        hint = f"; the nearest name is '{near[0]}'" if near else ''
        first += f', which is no class of the dataset{hint}'
    number = '' if len(mistakes) == 1 else f' (the first of {len(mistakes)} mistakes)'
    raise InputError(f'The neighbour classes {first}{number}.')


def nearest_classes(embeddings: Tensor, classes: Sequence[str], number: int) -> dict[str, list[tuple[str, float]]]:
    """The classes whose embeddings have the largest cosines with that of each class.

    Of equal cosines the class of the lower index comes first. A class is never
    a neighbour of one of its own name.

    Args:
        embeddings (Tensor): Of the classes' texts, (C, D), of any length.
        classes (Sequence[str]): C class names.
        number (int): Neighbours of a class, fewer where there are no more.

    Returns:
        dict[str, list[tuple[str, float]]]: Names of the neighbours and their
        cosines by the name of the class, the nearest first.
    """
    embeddings = F.normalize(embeddings.double(), dim=-1)
    most = max(Counter(map(_plain, classes)).values(), default=1)  # of one name
    found: dict[str, list[tuple[str, float]]] = {}
    for start in range(0, len(classes), _ROWS):
        ranked = (embeddings[start : start + _ROWS] @ embeddings.t()).sort(dim=1, descending=True, stable=True)
        first = slice((number + 1) * most)  # no more are looked at
        rows = ranked.values[:, first].tolist(), ranked.indices[:, first].tolist()
        for name, cosines, order in zip(classes[start : start + _ROWS], *rows):
            nearest: dict[str, float] = {}
            for cosine, j in zip(cosines, order):
                if _plain(classes[j]) != _plain(name):
                    nearest.setdefault(str(classes[j]), cosine)
            found.setdefault(str(name), list(nearest.items())[:number])
    return found

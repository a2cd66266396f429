"""Label files of several labels an image: VOC, COCO, lists, tables and published counts."""

from __future__ import annotations

import os
import re
import xml.etree.ElementTree as ET
from collections.abc import Sequence

import numpy as np
from mmpretrain.datasets.categories import VOC2007_CATEGORIES

from mmlt.checkpoints import load_restricted_pickle
from mmlt.datasets.long_tailed_dataset import (
    checked_label,
)
from mmlt.datasets.texts.files import json_entries, read_table
from mmlt.errors import InputError
from mmlt.utils.text_files import is_file, read_json, read_lines

# The groups of class_split.pkl, from the bounds of the protocol 'db'.
PUBLISHED_SPLIT = {'head': (100, np.inf), 'middle': (20, 100), 'tail': (0, 20)}


def _must_exist(path: str, what: str) -> None:
    if not (is_file(path) or os.path.isdir(path)):
        raise InputError(
            f"The {what} '{path}' does not exist: check data_root and the dataset's arguments, or download it "
            '(docs/datasets.md says where from).'
        )


def read_image_ids(path: str) -> list[str]:
    """Read image ids, one a line.

    VOC-LT's ``img_id.txt``, VOC's ``ImageSets/Main/test.txt``, and COCO-LT's
    ``img_id.pkl``, which is such a text in spite of its name.

    Args:
        path (str): Text file.

    Returns:
        list[str]: The ids.

    Raises:
        InputError: The file is missing, empty, or not a text.
    """
    _must_exist(path, 'list of image ids')
    try:
        ids = [line.strip() for line in read_lines(path) if line.strip()]
    except InputError as e:
        raise InputError(f"'{path}' is not a text with one image id a line: {e}") from e
    if not ids:
        raise InputError(f"'{path}' lists no images.")
    return ids


def parse_label_list(path: str) -> tuple[list[str], list[np.ndarray]]:
    """Read a list of ``relative/path label label ...`` lines, labels from 0.

    A line without labels is an image that shows none of the classes.

    Args:
        path (str): Text file.

    Returns:
        tuple: N paths, and the sorted labels of each.

    Raises:
        InputError: The file is missing or empty, or a line names a label
            twice, or divides or writes them otherwise; names it.
    """
    _must_exist(path, 'annotation file')
    files, labels = [], []
    for i, line in enumerate(read_lines(path), 1):
        if not line.strip():
            continue
        file, numbers = re.fullmatch(r'(\S.*?)((?:\s+-?\d+)*)\s*', line.strip()).groups()
        if re.search(r'[,;|]\s*-?\d+(\.\d*)?$|\s-?\d+\.\d*$', file):
            raise InputError(
                f"'{path}', line {i}: '{line.strip()[:80]}' is not of the form 'relative/path label label ...', whole "
                'numbers with spaces between; a table with a header is for a .csv file.'
            )
        own = sorted(checked_label(n, f"'{path}', line {i}") for n in numbers.split())
        if len(set(own)) < len(own):
            twice = next(a for a, b in zip(own, own[1:]) if a == b)
            raise InputError(
                f"'{path}', line {i}: label {twice} stands there twice. A list has the numbers of the labels that an "
                'image has; a column of 0 and 1 for each class is for a .csv file with a header.'
            )
        files.append(file)
        labels.append(np.array(own, dtype=np.int64))
    if not files:
        raise InputError(f"'{path}' lists no images.")
    return files, labels


# Beside numbers: what pandas and spreadsheets write.
_WORDS = {'': 0, 'false': 0, 'true': 1, 'nan': -1, 'na': -1, 'n/a': -1}


def _label_value(text: str) -> int | None:
    """1, 0 or -1 of a table's field, None if it is none of them; a decimal comma is a point."""
    if (word := text.lower()) in _WORDS:
        return _WORDS[word]
    try:
        value = float(word.replace(',', '.'))
    except ValueError:
        return None
    return int(value) if value in (-1, 0, 1) else None


def read_label_scores(
    path: str, classes: Sequence[str] | None = None
) -> tuple[list[str], np.ndarray, tuple[str, ...], int]:
    """Read a table: a column ``image``, and one for each class with 1 where an image has the label, 0 where not.

    1.0, 0.0, True and False are the same; a blank is 0; -1 and NaN say that it
    is not known: such a label is not to be scored.

    Args:
        path (str): ``.csv`` or ``.tsv`` file with a header, see
            :func:`read_table`.
        classes (Sequence[str], optional): The columns to take, in the order of
            labels. Defaults to None, all but ``image``.

    Returns:
        tuple: N paths; 1, 0 or -1, shape (N, C); the class names; how many
        values were blank.

    Raises:
        InputError: The file, a column or a value is missing or wrong; names it.
    """
    _must_exist(path, 'annotation file')
    table = read_table(path, ('image',))
    image = table.column('image')
    header = [name for i, name in enumerate(table.header) if i != image]
    names = tuple(header if classes is None else classes)
    for name in names:
        if not name:
            raise InputError(f"'{path}' has a column without a name: remove it (pandas: index=False), or name it.")
        if (number := header.count(name)) > 1:
            raise InputError(f"'{path}' has the column '{name}' {number} times: remove all but one.")
        if number == 0:
            raise InputError(
                f"'{path}' has no column '{name}', which the class list names: its columns are "
                f'{", ".join(table.header[:8])}{" ..." if len(table.header) > 8 else ""}.'
            )
    columns = [next(i for i, own in enumerate(table.header) if own == name and i != image) for name in names]
    files, blank = [], 0
    scores = np.empty((len(table.rows), len(names)), np.int8)
    for i, row in enumerate(table.rows):
        if None in row:
            raise InputError(
                f'{table.where(i)}: {row.index(None)} values, but the header has {len(row)} columns; a value that is '
                'not there needs its delimiter.'
            )
        if not row[image]:
            raise InputError(f'{table.where(i)}: the image is missing.')
        for j, c in enumerate(columns):
            value = _label_value(row[c])
            if value is None:
                raise InputError(
                    f"{table.where(i)}: the value '{row[c]}' is neither 0 nor 1 in the column '{names[j]}' (nor blank, "
                    'which is 0, nor -1, not known).'
                )
            scores[i, j] = value
            blank += not row[c]
        files.append(row[image])
    return files, scores, names, blank


def parse_voc(
    folder: str, ids: Sequence[str], classes: Sequence[str] | None = None, difficult: bool | None = None
) -> tuple[list[str], list[np.ndarray], tuple[str, ...]]:
    """Read Pascal VOC's ``Annotations/<id>.xml``.

    Args:
        folder (str): The folder ``Annotations``.
        ids (Sequence[str]): Ids of N images.
        classes (Sequence[str], optional): The classes to take, in the order of
            labels. Defaults to None, VOC's 20.
        difficult (bool, optional): Only objects that are marked as difficult,
            or only the others. Defaults to None, all, as in the lists of
            VOC-LT (Wu et al. 2020).

    Returns:
        tuple: N files ``<id>.jpg``, the sorted labels of each, the class names.

    Raises:
        InputError: A file is missing or no XML; without ``classes``, an object
            of no class of VOC.
    """
    _must_exist(folder, 'annotation folder')
    names = tuple(VOC2007_CATEGORIES if classes is None else classes)
    number = {name: i for i, name in enumerate(names)}
    labels = []
    for image_id in ids:
        path = os.path.join(folder, f'{image_id}.xml')
        _must_exist(path, 'annotation file')
        try:
            found = {
                obj.findtext('name')
                for obj in ET.parse(path).getroot().iter('object')
                if difficult is None or difficult == ((obj.findtext('difficult') or '0').strip() == '1')
            }
        except ET.ParseError as e:
            raise InputError(f"'{path}' cannot be read as XML ({e}): download it again.") from e
        if classes is None and (other := sorted(str(n) for n in found if n not in number)):
            raise InputError(f"'{path}' has an object '{other[0]}', which is no class of VOC: give classes=[...].")
        labels.append(np.array(sorted(number[n] for n in found if n in number), dtype=np.int64))
    return [f'{image_id}.jpg' for image_id in ids], labels, names


def parse_coco(
    path: str, ids: Sequence[str] | None = None, classes: Sequence[str] | None = None, ignored: bool = False
) -> tuple[list[str], list[np.ndarray], tuple[str, ...]]:
    """Read COCO's ``instances_*.json``.

    As in the lists of COCO-LT (Wu et al. 2020) crowds count, and objects
    without area, or less than a pixel wide or high, do not.

    Args:
        path (str): The JSON file.
        ids (Sequence[str], optional): Ids of the N images to take.
            Defaults to None, all images.
        classes (Sequence[str], optional): The categories to take, in the order
            of labels. Defaults to None, all in the order of their ids.
        ignored (bool): Take the objects that are marked by ``ignore`` instead
            of the others. Defaults to False.

    Returns:
        tuple: N file names, the sorted labels of each, the class names.

    Raises:
        InputError: The file is missing or has another form; an image or class
            is not in it.
    """
    _must_exist(path, 'annotation file')
    content = read_json(path)
    images = json_entries(path, content, 'images', ('id', 'file_name'))
    files = {str(image['id']): image['file_name'] for image in images}
    listed = json_entries(path, content, 'categories', ('id', 'name'))
    found = json_entries(path, content, 'annotations', ('image_id', 'category_id', 'area', 'bbox'))
    try:
        categories = {c['name']: c['id'] for c in sorted(listed, key=lambda c: c['id'])}
        objects = [
            (str(a['image_id']), a['category_id'])
            for a in found
            if bool(a.get('ignore')) == ignored and a['area'] > 0 and min(a['bbox'][2:]) >= 1
        ]
    except (ValueError, TypeError) as e:
        raise InputError(f"'{path}' is not an annotation file of COCO ({type(e).__name__}: {e}).") from e
    if len(categories) < len(listed):
        raise InputError(f"'{path}' has several categories of one name: give each its own.")
    names = tuple(categories if classes is None else classes)
    if lost := [name for name in names if name not in categories]:
        raise InputError(f"'{path}' has no category '{lost[0]}', which the class list names.")
    ids = list(files if ids is None else ids)
    if lost := [i for i in ids if i not in files]:
        raise InputError(f"'{path}' has no image with the id '{lost[0]}' ({len(lost)} of {len(ids)} ids are unknown).")
    number = {categories[name]: i for i, name in enumerate(names)}
    labels: dict[str, set[int]] = {i: set() for i in ids}
    for image_id, category in objects:
        if image_id in labels and category in number:
            labels[image_id].add(number[category])
    return [files[i] for i in ids], [np.array(sorted(labels[i]), dtype=np.int64) for i in ids], names


def read_class_freq(path: str, num_classes: int) -> tuple[np.ndarray, int]:
    """Read a published ``class_freq.pkl``.

    Args:
        path (str): A pickled dict with ``class_freq`` and ``neg_class_freq``,
            the training images with and without every class.
        num_classes (int): C.

    Returns:
        tuple: Counts of shape (C, ), and the number of training images.

    Raises:
        InputError: Another content, or another number of classes.
    """
    content = load_restricted_pickle(path)
    try:
        counts, others = (np.asarray(content[k], dtype=np.int64) for k in ('class_freq', 'neg_class_freq'))
        total = int(counts[0] + others[0])
        fits = counts.shape == others.shape and (counts + others == total).all() and (counts > 0).all()
    except (KeyError, IndexError, TypeError, ValueError):
        fits = False
    if not fits:
        raise InputError(
            f"'{path}' does not hold class_freq and neg_class_freq, positive counts of every class that add up to "
            'the number of images.'
        )
    if len(counts) != num_classes:
        raise InputError(f"'{path}' has counts of {len(counts)} classes, but the dataset has {num_classes}.")
    return counts, total


def read_class_split(path: str, num_classes: int) -> np.ndarray:
    """Read a published ``class_split.pkl``.

    Args:
        path (str): A pickled dict of the sets ``head``, ``middle`` and
            ``tail`` of class numbers.
        num_classes (int): C.

    Returns:
        np.ndarray: 0 head, 1 middle, 2 tail of every class, shape (C, ).

    Raises:
        InputError: Another content, or a class that is not in exactly one set.
    """
    content = load_restricted_pickle(path)
    groups = np.full(num_classes, -1)
    try:
        for i, key in enumerate(PUBLISHED_SPLIT):
            for c in content[key]:
                if not 0 <= int(c) < num_classes or groups[int(c)] >= 0:
                    raise ValueError
                groups[int(c)] = i
    except (KeyError, TypeError, ValueError):
        groups[:] = -1
    if (groups < 0).any():
        raise InputError(
            f"'{path}' does not hold head, middle and tail, sets that have each of the {num_classes} classes once."
        )
    return groups

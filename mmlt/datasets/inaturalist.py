"""iNaturalist's competition files."""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np
from mmengine.fileio import join_path

from mmlt.datasets.long_tailed_dataset import LongTailedDataset
from mmlt.datasets.texts.files import json_entries
from mmlt.errors import InputError
from mmlt.registry import DATASETS
from mmlt.utils.text_files import is_file, read_json


def _read(path: str):
    if not is_file(path):
        raise InputError(f"The file '{path}' does not exist: docs/datasets.md says where it is from.")
    return read_json(path)


def read_categories(path: str) -> dict[int, str]:
    """Names of categories by their ids, the ids in order.

    Args:
        path (str): A competition file, or a list of categories alone, as the
            ``categories.json`` with the species' names is.

    Returns:
        dict[int, str]: Names.

    Raises:
        InputError: The file is missing, damaged or of another form.
    """
    table = _read(path)
    return _names(path, table if isinstance(table, dict) else dict(categories=table))


def _names(path: str, table) -> dict[int, str]:
    found = json_entries(path, table, 'categories', ('id', 'name'))
    for i, category in enumerate(found, 1):  # sorted below
        if type(category['id']) is not int:
            raise InputError(f"'{path}', categories, entry {i}: the id {category['id']!r} is no number.")
    return {c['id']: str(c['name']) for c in sorted(found, key=lambda c: c['id'])}


@DATASETS.register_module()
class INaturalist2018(LongTailedDataset):
    """iNaturalist 2018: 437,513 training images of 8,142 species, 3 of each to validate.

    It reads ``train2018.json`` and ``val2018.json`` as published; label c is
    the category with the c-th lowest id, for the whole data set the id itself.
    Files of other years have the same form.

    Args:
        ann_file (str): The JSON file of this split.
        train_ann_file (str, optional): That of the train split. Defaults to
            None, which means that this is the train split.
        classes (str | Sequence[str], optional): Class names: a sequence, or a
            JSON file (below ``data_root``) with the list of categories; that of
            2018 has numbers for names, and ``categories.json`` was published
            later with the species'. Defaults to None, the names in
            ``ann_file``.
        data_root (str): Root of files. Defaults to ''.
        **kwargs: See :class:`LongTailedDataset`.

    Raises:
        InputError: Missing files, lists, fields or pictures; an annotation of
            an unknown image or category; splits or names of other categories;
            classes without training images.
    """

    def __init__(
        self,
        ann_file: str,
        train_ann_file: str | None = None,
        classes: str | Sequence[str] | None = None,
        data_root: str = '',
        **kwargs,
    ):
        self.category_ids: tuple[int, ...] | None = None
        self.categories_file = ''
        if isinstance(classes, str):
            self.categories_file = classes if os.path.isabs(classes) else join_path(data_root, classes)
            names = read_categories(self.categories_file)
            self.category_ids, classes = tuple(names), tuple(names.values())
        super().__init__(ann_file, train_ann_file, classes, data_root, **kwargs)

    def read_annotation(self, path: str) -> tuple[list[str], np.ndarray]:
        """See :class:`LongTailedDataset`."""
        table = _read(path)
        names = _names(path, table)
        if self.category_ids is None:
            self.category_ids, self.categories_file = tuple(names), path
        elif self.category_ids != tuple(names):
            raise InputError(
                f"'{path}' has other categories than '{self.categories_file}': take all files from one release."
            )
        if self.CLASSES is None:
            self._metainfo['classes'] = tuple(names.values())
        files = {i['id']: i['file_name'] for i in json_entries(path, table, 'images', ('id', 'file_name'))}
        labels = {category: label for label, category in enumerate(names)}
        found = json_entries(path, table, 'annotations', ('image_id', 'category_id'))
        for i, annotation in enumerate(found, 1):
            for field, known in (('image_id', files), ('category_id', labels)):
                if annotation[field] not in known:
                    raise InputError(
                        f"'{path}', annotations, entry {i}: {field} {annotation[field]!r} is not in the file's "
                        f'{"images" if known is files else "categories"}.'
                    )
        return (
            [files[a['image_id']] for a in found],
            np.array([labels[a['category_id']] for a in found], dtype=np.int64),
        )

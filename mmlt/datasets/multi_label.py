"""Long-tailed multi-label datasets: VOC-LT, COCO-LT, lists and tables."""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np
from mmengine.fileio import join_path
from mmengine.logging import print_log
from mmpretrain.datasets import MultiLabelDataset

from mmlt.datasets.long_tailed_dataset import NamesUnreadablePictures
from mmlt.datasets.multi_label_files import (
    PUBLISHED_SPLIT,
    parse_coco,
    parse_label_list,
    parse_voc,
    read_class_freq,
    read_class_split,
    read_image_ids,
    read_label_scores,
)
from mmlt.datasets.picture_files import image_paths, picture_backend
from mmlt.datasets.texts.class_names import resolve_classes
from mmlt.datasets.texts.files import TABLE_SUFFIXES
from mmlt.datasets.unscored import mark_unscored
from mmlt.errors import InputError
from mmlt.registry import DATASETS
from mmlt.utils.classes import check_twins
from mmlt.utils.labels import check_label_lists
from mmlt.utils.long_tail import count_positives


@DATASETS.register_module()
class LongTailedMultiLabel(NamesUnreadablePictures, MultiLabelDataset):
    """A long-tailed multi-label dataset: VOC-LT, COCO-LT, MIML, NUS-WIDE-SCENE, one's own.

    What ``ann_file`` is decides how it is read:

    - a folder: Pascal VOC's ``Annotations``, with ``img_ids``;
    - ``.json``: COCO's ``instances_*.json``, with or without ``img_ids``;
    - ``.csv``, ``.tsv``: a header, a column ``image`` and one of 0 and 1 a
      class; a blank is 0, and -1 (not known) is not to be scored, which the
      samples then say by ``gt_score``, see :func:`read_label_scores`;
    - anything else: ``relative/path label label ...`` a line, labels from 0.

    ``metainfo['class_counts']`` holds the images of every class in the TRAIN
    split and ``metainfo['num_train_images']`` how many images that has, on
    every split. An image may have no label: it shows none of the classes, and
    is a negative example of all. How many there are is logged.

    Labels that are not to be scored, objects that COCO's annotations mark by
    ``ignore`` and, if asked, those that VOC's mark as difficult, are
    ``gt_label_difficult`` of an image, as in MMPretrain's ``VOC``. Losses and
    metrics leave them out.

    Args:
        ann_file (str): Annotations of this split, below ``data_root``.
        img_ids (str, optional): A list of image ids of VOC or COCO.
            Defaults to None, all images; VOC needs it.
        train_ann_file (str, optional): Annotations of the train split.
            Defaults to None, which means that this is the train split, unless
            ``class_freq`` is given.
        train_img_ids (str, optional): Image ids of the train split.
            Defaults to None.
        class_freq (str, optional): The published ``class_freq.pkl``, whose
            counts are then taken, without reading the train split's
            annotations. A train split whose annotations give other counts is
            warned about. Defaults to None.
        class_split (str, optional): The published ``class_split.pkl``; groups
            that differ from those of the counts are warned about.
            Defaults to None.
        classes (str | Sequence[str], optional): Class names in the order of
            labels: a sequence or a text file below ``data_root``. From a
            table, VOC or COCO only these classes are taken. Defaults to None,
            those of the table, of VOC or of COCO, or the labels' numbers.
        data_root (str): Root of files. Defaults to ''.
        data_prefix (str): Folder of the images below it. Defaults to ''.
        difficult (str): What becomes of VOC's difficult objects: 'positive',
            they count as all others, in training and test, as in VOC-LT's
            published lists; 'ignore', a class that an image shows only as
            difficult objects is not to be scored, VOC's own rule.
            Defaults to 'positive'.
        **kwargs: See MMPretrain's ``BaseDataset``.

    Raises:
        InputError: Missing lists or pictures, bad lines, labels outside
            [0, C), classes without training images, unfit statistics.
    """

    def __init__(
        self,
        ann_file: str,
        img_ids: str | None = None,
        train_ann_file: str | None = None,
        train_img_ids: str | None = None,
        class_freq: str | None = None,
        class_split: str | None = None,
        classes: str | Sequence[str] | None = None,
        data_root: str = '',
        data_prefix: str | dict = '',
        difficult: str = 'positive',
        **kwargs,
    ):
        if difficult not in ('positive', 'ignore'):
            raise InputError(f"LongTailedMultiLabel: difficult is '{difficult}'; choose 'positive' or 'ignore'.")
        self.difficult = difficult
        self.img_ids, self.train_ann_file, self.train_img_ids = img_ids, train_ann_file, train_img_ids
        self.class_freq, self.class_split = class_freq, class_split
        super().__init__(
            ann_file=ann_file,
            data_root=data_root,
            data_prefix=data_prefix,
            classes=resolve_classes(classes, data_root),
            **kwargs,
        )

    def load_data_list(self) -> list[dict]:
        """Read the annotations; see :class:`LongTailedMultiLabel` for what is checked."""
        files, labels, names, scores = self._read(self.ann_file, self._path(self.img_ids), self.CLASSES)
        is_train_split = self.train_ann_file is None
        train_labels, train_file = labels, self.ann_file
        if not is_train_split:
            train_file = self._path(self.train_ann_file)
            _, train_labels, names, _ = self._read(train_file, self._path(self.train_img_ids), self.CLASSES)
        if names is None:
            top = max((int(own[-1]) for own in train_labels if len(own)), default=-1)
            names = tuple(str(c) for c in range(top + 1))
        self._metainfo['classes'] = names
        check_twins(names, 'The class list')
        if self.class_freq is None:
            counts, total = count_positives(train_labels, names, f"'{train_file}'"), len(train_labels)
        else:
            published, total = read_class_freq(self._path(self.class_freq), len(names))
            counts = published.tolist()
        check_label_lists(labels, names, f"'{self.ann_file}'")
        self._metainfo.update(class_counts=counts, num_train_images=total)
        self._compare(train_labels if len(train_labels) == total else None)
        if empty := sum(len(own) == 0 for own in labels):
            print_log(f"{empty} of the {len(labels)} images of '{self.ann_file}' have no label.", logger='current')
        paths = image_paths(self.img_prefix, files, self.ann_file, picture_backend(self))
        infos = [{'img_path': path, 'gt_label': own.tolist()} for path, own in zip(paths, labels)]
        if scores is not None and (scores < 0).any():
            for info, own in zip(infos, scores):
                info['gt_score'] = own.astype(np.float32).tolist()
        if (unscored := self._unscored(names)) is not None:
            for info, own in zip(infos, unscored):
                info['gt_label_difficult'] = own.tolist()
        return infos

    @property
    def declared_counts(self) -> tuple[list[int], int] | None:
        """Published counts and number of images, which stand for the annotations' own; None where there are none."""
        if self.class_freq is None or self._indices is not None:
            return None
        meta = self.metainfo
        return meta['class_counts'], meta['num_train_images']

    def full_init(self) -> None:
        """Load the annotations; see MMEngine."""
        if not self._fully_initialized:
            super().full_init()
            mark_unscored(self)

    def _path(self, path: str | None) -> str | None:
        return path if path is None or os.path.isabs(path) else join_path(self.data_root, path)

    def _read(self, ann_file: str, img_ids: str | None, classes: Sequence[str] | None) -> tuple:
        """Files, labels, class names (None where a list does not tell them) and scores (None but of a table)."""
        kind = os.path.splitext(ann_file)[1].lower()
        if os.path.isdir(ann_file):
            if img_ids is None:
                raise InputError(f"'{ann_file}' is a folder, Pascal VOC's: name the images of the split by img_ids.")
            return *parse_voc(
                ann_file, read_image_ids(img_ids), classes, False if self.difficult == 'ignore' else None
            ), None
        if kind == '.json':
            return *parse_coco(ann_file, None if img_ids is None else read_image_ids(img_ids), classes), None
        if img_ids is not None:
            raise InputError(f"img_ids is for VOC's and COCO's annotations; '{ann_file}' lists its images itself.")
        if kind not in TABLE_SUFFIXES:
            return *parse_label_list(ann_file), classes, None
        files, scores, names, blank = read_label_scores(ann_file, classes)
        if blank:
            print_log(
                f"{blank} of the {scores.size} values of '{ann_file}' are blank and count as 0.", logger='current'
            )
        return files, [np.flatnonzero(row == 1) for row in scores], names, scores

    def _unscored(self, classes: Sequence[str]) -> list[np.ndarray] | None:
        """Labels of every image that are not to be scored, None where the annotations cannot mark any."""
        ids = None if self.img_ids is None else read_image_ids(self._path(self.img_ids))
        if os.path.isdir(self.ann_file) and self.difficult == 'ignore':
            return parse_voc(self.ann_file, ids, classes, difficult=True)[1]
        if self.ann_file.lower().endswith('.json'):
            return parse_coco(self.ann_file, ids, classes, ignored=True)[1]
        return None

    def _compare(self, train_labels: list[np.ndarray] | None) -> None:
        """Warn where published statistics and annotations disagree."""
        names, counts = self.CLASSES, np.array(self._metainfo['class_counts'])
        if self.class_freq is not None and train_labels is not None:
            own = np.bincount(np.concatenate(train_labels), minlength=len(names))[: len(names)]
            self._warn(
                self.class_freq, [f'{names[c]} {counts[c]}, not {own[c]}' for c in np.flatnonzero(own != counts)]
            )
        if self.class_split is not None:
            groups = read_class_split(self._path(self.class_split), len(names))
            low, high = np.array(list(PUBLISHED_SPLIT.values()))[groups].T
            other = np.flatnonzero((counts < low) | (counts >= high))
            shots = list(PUBLISHED_SPLIT)
            self._warn(self.class_split, [f'{names[c]} in {shots[groups[c]]} with {counts[c]} images' for c in other])

    def _warn(self, file: str, differences: list[str]) -> None:
        if differences:
            print_log(
                f"'{file}' does not fit the annotations in {len(differences)} of {len(self.CLASSES)} classes: "
                f'{"; ".join(differences[:5])}{" ..." if len(differences) > 5 else ""}.',
                logger='current',
                level=30,
            )

    def extra_repr(self) -> list[str]:
        """Lines of ``repr``."""
        return [*super().extra_repr(), f'Image ids: \t{self.img_ids}']

"""Downloaded multi-label data sets: VOC-LT and COCO-LT."""

from __future__ import annotations

import os.path as osp

import numpy as np

from mmlt.datasets.multi_label_files import (
    PUBLISHED_SPLIT,
    parse_coco,
    parse_voc,
    read_class_freq,
    read_class_split,
    read_image_ids,
)
from mmlt.errors import InputError
from mmlt.preparation.checks import DOWNLOADS, Contents, Download, published


def read_voc_lt(download: Download, root: str, contents: Contents) -> None:
    """VOC 2012 by the ids of ``longtail2012/``, VOC 2007 to test."""

    def split(year: int, ids: str):
        return parse_voc(osp.join(root, f'VOC{year}', 'Annotations'), read_image_ids(osp.join(root, ids)))

    for name, year, ids in (
        ('train', 2012, 'longtail2012/img_id.txt'),
        ('test', 2007, 'VOC2007/ImageSets/Main/test.txt'),
    ):
        found = contents.attempt(split, year, ids)
        if found is not None:
            files = [f'VOC{year}/JPEGImages/{f}' for f in found[0]]
            _take(download, root, contents, name, files, *found[1:])
    _compare_published(download, osp.join(root, 'longtail2012'), contents)


def read_coco_lt(download: Download, root: str, contents: Contents) -> None:
    """COCO train2017 by the ids of ``longtail2017/``, val2017 to test."""

    def split(part: str, ids: str | None):
        wanted = None if ids is None else read_image_ids(osp.join(root, ids))
        return parse_coco(osp.join(root, f'annotations/instances_{part}.json'), wanted)

    for name, part, ids in (('train', 'train2017', 'longtail2017/img_id.pkl'), ('test', 'val2017', None)):
        found = contents.attempt(split, part, ids)
        if found is not None:
            _take(download, root, contents, name, [f'{part}/{f}' for f in found[0]], *found[1:])
    _compare_published(download, osp.join(root, 'longtail2017'), contents)


def _take(download: Download, root: str, contents: Contents, split: str, files, labels, classes) -> None:
    contents.classes = classes
    contents.splits[split], contents.folders[split] = (files, labels), root
    if split == 'train':
        contents.counts = np.bincount(np.concatenate(labels), minlength=len(classes))


def _compare_published(download: Download, folder: str, contents: Contents) -> None:
    """Compare the annotations with the published statistics, which belong to the download."""
    names = contents.classes
    if not len(names) or contents.counts is None:
        return
    for file, read in (('class_freq.pkl', read_class_freq), ('class_split.pkl', read_class_split)):
        path = osp.join(folder, file)
        if not osp.isfile(path):
            contents.problems.append(f"{download.title}: '{file}' is missing in '{folder}'.")
            continue
        try:
            found = read(path, len(names))
        except InputError as e:
            contents.problems.append(str(e))
            continue
        if read is read_class_freq:
            wrong = np.flatnonzero(found[0] != contents.counts)
        else:
            low, high = np.array(list(PUBLISHED_SPLIT.values()))[found].T
            wrong = np.flatnonzero((contents.counts < low) | (contents.counts >= high))
        if wrong.size:
            contents.problems.append(
                f"{download.title}: '{file}' does not fit the annotations in {wrong.size} of {len(names)} classes, "
                f"the first is '{names[wrong[0]]}' with {contents.counts[wrong[0]]} images: annotations and lists are "
                'of different versions.'
            )


DOWNLOADS['voc-lt'] = published('voc-lt', read_voc_lt)
DOWNLOADS['coco-lt'] = published('coco-lt', read_coco_lt)

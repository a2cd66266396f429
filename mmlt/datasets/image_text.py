"""Images with captions."""

from __future__ import annotations

import csv
import io
import os

from mmengine.fileio import join_path
from mmpretrain.datasets import BaseDataset

from mmlt.datasets.long_tailed_dataset import NamesUnreadablePictures
from mmlt.datasets.text_files import read_text
from mmlt.errors import InputError
from mmlt.registry import DATASETS


@DATASETS.register_module()
class ImageTextDataset(NamesUnreadablePictures, BaseDataset):
    """Pairs of image and caption from a CSV or TSV file with a header.

    The columns ``image`` (path below ``data_prefix``) and ``caption`` are
    read, and ``label`` (an integer) where it exists: pairs of one label are
    then positives of each other in :class:`ContrastivePretrainer`.

    Args:
        ann_file (str): A ``.csv`` (comma) or ``.tsv`` (tab) file in UTF-8.
        **kwargs: See MMPretrain's ``BaseDataset``.

    Raises:
        InputError: The file or a column is missing, or a row is bad.
    """

    def __init__(self, ann_file: str, **kwargs):
        super().__init__(ann_file=ann_file, **kwargs)

    def load_data_list(self) -> list[dict]:
        """Read the table."""
        if not os.path.isfile(self.ann_file):
            raise InputError(f"The caption file '{self.ann_file}' does not exist: check data_root and ann_file.")
        with io.StringIO(read_text(self.ann_file), newline='') as f:
            reader = csv.DictReader(f, delimiter='\t' if self.ann_file.endswith('.tsv') else ',')
            for column in ('image', 'caption'):
                if column not in (reader.fieldnames or ()):
                    raise InputError(
                        f"'{self.ann_file}' has no column '{column}' in its first line: it needs a header with "
                        'image and caption, and may have label.'
                    )
            data_list = [self._parse_row(row, f"'{self.ann_file}', line {reader.line_num}") for row in reader]
        if not data_list:
            raise InputError(f"'{self.ann_file}' has a header but no rows.")
        labelled = sum('gt_label' in info for info in data_list)
        if 0 < labelled < len(data_list):
            raise InputError(
                f"'{self.ann_file}' has labels in {labelled} of {len(data_list)} rows: give all rows a label, or none."
            )
        return data_list

    def _parse_row(self, row: dict, where: str) -> dict:
        if not row['image']:
            raise InputError(f'{where}: the image is missing.')
        if not row['caption']:
            raise InputError(f"{where}: '{row['image']}' has no caption.")
        path = join_path(self.img_prefix, row['image']) if self.img_prefix else row['image']
        if not os.path.isfile(path):
            raise InputError(f"{where}: the image '{path}' does not exist.")
        info = {'img_path': path, 'caption': row['caption']}
        if label := row.get('label'):
            if not label.strip().isdigit():
                raise InputError(f"{where}: the label '{label}' is not an integer from 0.")
            info['gt_label'] = int(label)
        return info

"""Images with captions."""

from __future__ import annotations

from mmpretrain.datasets import BaseDataset

from mmlt.datasets.long_tailed_dataset import NamesUnreadablePictures, checked_label
from mmlt.datasets.picture_files import image_paths, picture_backend
from mmlt.datasets.texts.files import read_table
from mmlt.errors import InputError
from mmlt.registry import DATASETS
from mmlt.utils.text_files import is_file


@DATASETS.register_module()
class ImageTextDataset(NamesUnreadablePictures, BaseDataset):
    """Pairs of image and caption from a CSV or TSV file with a header.

    The columns ``image`` (path below ``data_prefix``) and ``caption`` are
    read, and ``label`` (an integer) where it exists: pairs of one label are
    then positives of each other in :class:`ContrastivePretrainer`.

    Args:
        ann_file (str): A ``.csv`` or ``.tsv`` file, see :func:`read_table`.
        **kwargs: See MMPretrain's ``BaseDataset``.

    Raises:
        InputError: The file or a column is missing, or a row is bad.
    """

    def __init__(self, ann_file: str, **kwargs):
        super().__init__(ann_file=ann_file, **kwargs)

    def load_data_list(self) -> list[dict]:
        """Read the table."""
        if not is_file(self.ann_file):
            raise InputError(f"The caption file '{self.ann_file}' does not exist: check data_root and ann_file.")
        table = read_table(self.ann_file, ('image', 'caption'))
        rows = list(table.select('image', 'caption', 'label'))
        data_list = [self._parse_row(row, where) for where, row in rows]
        labelled = sum('gt_label' in info for info in data_list)
        if 0 < labelled < len(data_list):
            raise InputError(
                f"'{self.ann_file}' has labels in {labelled} of {len(data_list)} rows: give all rows a label, or none."
            )
        files = [row['image'] for _, row in rows]
        paths = image_paths(self.img_prefix, files, self.ann_file, picture_backend(self), table.lines)
        return [{'img_path': path, **info} for path, info in zip(paths, data_list)]

    def _parse_row(self, row: dict, where: str) -> dict:
        if not row['image']:
            raise InputError(f'{where}: the image is missing.')
        if not row['caption']:
            raise InputError(f"{where}: '{row['image']}' has no caption.")
        info = {'caption': row['caption']}
        if label := row.get('label'):
            if not label.isdecimal():
                raise InputError(f"{where}: the label '{label}' is not an integer from 0.")
            info['gt_label'] = checked_label(label, where)
        return info

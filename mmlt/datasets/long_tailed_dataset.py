"""Long-tailed datasets given by a list of files."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence

import numpy as np
from mmengine.dataset import BaseDataset
from mmengine.fileio import join_path
from mmengine.logging import print_log
from mmengine.registry import DefaultScope
from mmpretrain.datasets import CustomDataset
from mmpretrain.registry import DATASETS as MM_DATASETS

from mmlt.datasets.limited import LimitsImbalance
from mmlt.datasets.picture_files import image_paths, picture_backend
from mmlt.datasets.pictures import read_error
from mmlt.datasets.texts.class_names import is_published, resolve_classes
from mmlt.datasets.transforms import picture_pipeline
from mmlt.errors import InputError
from mmlt.registry import DATASETS
from mmlt.utils import show_progress
from mmlt.utils.classes import check_twins
from mmlt.utils.labels import check_labels
from mmlt.utils.long_tail import count_classes
from mmlt.utils.text_files import is_file, read_lines

# No data set has so many classes: a longer number is something else, and counting up to it would fill the memory.
_MAX_LABEL_DIGITS = 7


def parse_annotation(path: str) -> tuple[list[str], np.ndarray]:
    """Read a list of ``relative/path label`` lines, labels from 0.

    Args:
        path (str): Text file.

    Returns:
        tuple: N paths, and labels of shape (N, ).

    Raises:
        InputError: It is no text; a line has no label, or one that cannot be.
    """
    files, labels = [], []
    for i, line in enumerate(read_lines(path), 1):
        parts = line.strip().rsplit(maxsplit=1)
        if not parts:
            continue
        if len(parts) == 2 and len(parts[1]) <= _MAX_LABEL_DIGITS and parts[1].isascii() and parts[1].isdigit():
            label = int(parts[1])  # nearly always; lists have a million lines
        elif len(parts) != 2 or not re.fullmatch(r'-?\d+', parts[1]):
            raise InputError(f"'{path}', line {i}: '{line.strip()[:80]}' is not of the form 'relative/path label'.")
        else:
            label = checked_label(parts[1], f"'{path}', line {i}")
        files.append(parts[0])
        labels.append(label)
    return files, np.array(labels, dtype=np.int64)


def checked_label(digits: str, where: str) -> int:
    """A label's number; an InputError if it is too large to be one."""
    if len(digits.lstrip('-0')) > _MAX_LABEL_DIGITS:
        raise InputError(f'{where}: the label {digits[:40]} is too large: number the classes 0, 1, 2, ...')
    return int(digits)


class NamesUnreadablePictures(BaseDataset):
    """A dataset of picture files: all of them are read by :class:`LoadPicture`, and it says which stopped it.

    Args:
        *args: See the dataset.
        pipeline (Sequence): Transforms; a plain ``LoadImageFromFile`` stands
            for ``mmlt.LoadPicture``. Defaults to none.
        **kwargs: See the dataset.
    """

    unreadable_remedy = 'replace it'

    def __init__(self, *args, pipeline: Sequence = (), **kwargs):
        super().__init__(*args, pipeline=picture_pipeline(pipeline), **kwargs)

    def prepare_data(self, idx: int):
        """Run the pipeline on one sample; an unreadable picture is named."""
        try:
            return super().prepare_data(idx)
        except Exception as e:
            path = self.get_data_info(idx)['img_path']
            if (reason := read_error(path, picture_backend(self, enable_singleton=True))) is None:
                raise
            raise InputError(f"The picture '{path}' cannot be read ({reason}): {self.unreadable_remedy}.") from e


def read_pipeline(dataset: dict) -> list[dict]:
    """The transforms of a dataset as it runs them.

    Args:
        dataset (dict): Its config.

    Returns:
        list[dict]: Those in the config, with :class:`LoadPicture` where this
        dataset reads by it.

    Raises:
        InputError: It has no pipeline of its own.
    """
    pipeline = dataset.get('pipeline')
    if pipeline is None:
        raise InputError(
            f'The dataset {dataset.get("type")} has no pipeline of its own that would tell how pictures are tested: '
            'give test_dataloader.dataset.pipeline.'
        )
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        kind = dataset.get('type')
        kind = MM_DATASETS.get(kind) if isinstance(kind, str) else kind
    ours = isinstance(kind, type) and issubclass(kind, NamesUnreadablePictures)
    return picture_pipeline(pipeline) if ours else list(pipeline)


@DATASETS.register_module()
class LongTailedDataset(LimitsImbalance, NamesUnreadablePictures, CustomDataset):
    """A long-tailed dataset of ``path label`` lists (ImageNet-LT, Places-LT, one's own).

    ``metainfo['class_counts']`` holds the images of every class in the TRAIN
    split, on every split: losses, samplers, heads and metrics read it there.

    Args:
        ann_file (str): The list of this split, ``relative/path label`` a line,
            labels from 0.
        train_ann_file (str, optional): The list of the train split. Defaults
            to None, which means that this is the train split.
        classes (str | Sequence[str], optional): Class names: a sequence, a
            text file (below ``data_root``), or ``'imagenet'`` for CLIP's names
            of the 1,000. Defaults to None, the labels' numbers as names.
        data_root (str): Root of files. Defaults to ''.
        data_prefix (str): Folder of the images below it. Defaults to ''.
        class_texts (str, optional): Where the class texts are, for modules
            that read them: a folder or file, also below ``data_root``, or a
            name, see :class:`ClassTexts`. It goes into the metainfo.
            Defaults to None.
        skip_unreadable (bool): Read every picture once at the start and leave
            out those that cannot be read; they are counted and named.
            By default an unreadable picture stops the run with its name.
            Defaults to False.
        **kwargs: See MMPretrain's ``CustomDataset``; ``max_imbalance`` and
            ``subset_seed`` of :class:`LimitsImbalance` on the train split.

    Raises:
        InputError: Missing lists or pictures, bad lines, labels outside
            [0, C), classes without training images.
    """

    unreadable_remedy = 'replace it, or set skip_unreadable=True on the dataset to leave out such pictures'

    def __init__(
        self,
        ann_file: str,
        train_ann_file: str | None = None,
        classes: str | Sequence[str] | None = None,
        data_root: str = '',
        data_prefix: str | dict = '',
        class_texts: str | None = None,
        skip_unreadable: bool = False,
        metainfo: dict | None = None,
        **kwargs,
    ):
        self.train_ann_file = train_ann_file
        self.skip_unreadable = skip_unreadable
        self._known_labels: tuple[np.ndarray, np.ndarray] | None = None  # of which data; the labels
        super().__init__(
            data_root=data_root,
            data_prefix=data_prefix,
            ann_file=ann_file,
            metainfo=metainfo,
            classes=resolve_classes(classes, data_root),
            **kwargs,
        )
        if class_texts is not None:
            below = join_path(data_root, class_texts)
            self._metainfo['class_texts'] = below if os.path.exists(below) else class_texts

    def read_annotation(self, path: str) -> tuple[list[str], np.ndarray]:
        """Read the images of a split; for other formats, override this.

        Args:
            path (str): A file that exists.

        Returns:
            tuple: N paths, and labels of shape (N, ).
        """
        return parse_annotation(path)

    def _read_split(self, path: str) -> tuple[list[str], np.ndarray]:
        if not is_file(path):
            raise InputError(
                f"The annotation file '{path}' does not exist: check data_root and ann_file, or download the list "
                '(the dataset page in docs/ says where from).'
            )
        files, labels = self.read_annotation(path)
        if not files:
            raise InputError(f"'{path}' lists no images.")
        return files, labels

    def load_data_list(self) -> list[dict]:
        """Read the lists; see :class:`LongTailedDataset` for what is checked."""
        files, labels = self._read_split(self.ann_file)
        train_file = self.ann_file if self.train_ann_file is None else self.train_ann_file
        if self.train_ann_file is not None and not (os.path.isabs(train_file) or '://' in train_file):
            train_file = join_path(self.data_root, train_file)
        is_train_split = train_file == self.ann_file or os.path.realpath(train_file) == os.path.realpath(self.ann_file)
        train_labels = labels if is_train_split else self._read_split(train_file)[1]

        paths = image_paths(self.img_prefix, files, self.ann_file, picture_backend(self))
        if self.skip_unreadable:
            paths, labels = self._drop_unreadable(paths, labels)
            if is_train_split:
                train_labels = labels
        if self.CLASSES is None:
            self._metainfo['classes'] = tuple(str(c) for c in range(int(train_labels.max()) + 1))
        if not is_published(self.CLASSES):
            check_twins(self.CLASSES, 'The class list')
        self._metainfo['class_counts'] = count_classes(train_labels, self.CLASSES, f"'{train_file}'")
        check_labels(labels, self.CLASSES, f"'{self.ann_file}'")
        return [{'img_path': p, 'gt_label': int(y)} for p, y in zip(paths, labels)]

    def get_gt_labels(self) -> np.ndarray:
        """Labels of all images, (N, ), which samplers, counts and checks ask for; read once for the same data."""
        self.full_init()
        data = getattr(self, 'data_address', None)  # another object after every change of the list
        if data is None:
            return super().get_gt_labels()
        if self._known_labels is None or self._known_labels[0] is not data:
            self._known_labels = data, super().get_gt_labels()
        return self._known_labels[1].copy()

    def _drop_unreadable(self, paths: list[str], labels: np.ndarray) -> tuple[list[str], np.ndarray]:
        backend = picture_backend(self)
        errors = [read_error(p, backend) for p in show_progress(paths, 'Checking pictures')]
        bad = [(p, e) for p, e in zip(paths, errors) if e]
        if bad:
            listing = '\n'.join(f'  {p}: {e}' for p, e in bad)
            print_log(
                f"{len(bad)} of the {len(paths)} pictures of '{self.ann_file}' cannot be read and are left out:\n"
                f'{listing}',
                logger='current',
                level=30,
            )
        keep = [i for i, e in enumerate(errors) if not e]
        if not keep:
            raise InputError(f"No picture of '{self.ann_file}' can be read; the first: {bad[0][0]}: {bad[0][1]}.")
        return [paths[i] for i in keep], labels[keep]

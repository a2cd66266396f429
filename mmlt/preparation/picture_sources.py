"""Where one's own pictures and their classes come from: folders, tables and lists."""

from __future__ import annotations

import os
import os.path as osp
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from tqdm import tqdm

from mmlt.datasets.long_tailed_dataset import parse_annotation
from mmlt.datasets.picture_files import existing, files_below, stay_below
from mmlt.datasets.pictures import HEIC_SUFFIXES, is_picture, listing, no_pictures
from mmlt.datasets.texts.files import TABLE_SUFFIXES, read_table
from mmlt.errors import InputError
from mmlt.preparation.given_splits import check_doubled, compare_classes, sibling_splits, split_folders
from mmlt.utils.text_files import read_json

# What browsers and download tools call a file that is not complete yet.
PARTIAL_SUFFIXES = ('.part', '.partial', '.crdownload', '.download', '.aria2', '.tmp')

_NUMBERS_AS_NAMES = 'The classes have numbers for names, which say nothing in a prompt: give --class-names.'


@dataclass
class Pictures:
    """Pictures with their labels.

    Args:
        root (str): Folder that the files are relative to.
        files (list[str]): N paths.
        labels (np.ndarray): Shape (N, ).
        classes (list[str]): C classes as the source names them.
        notes (list[str]): What was left out. Defaults to none.
        splits (np.ndarray, optional): 'train', 'val' or 'test' of every
            picture, (N, ). Defaults to None, they are not split yet.
    """

    root: str
    files: list[str]
    labels: np.ndarray
    classes: list[str]
    notes: list[str] = field(default_factory=list)
    splits: np.ndarray | None = None

    @classmethod
    def of(cls, root: str, files: Sequence[str], keys: Sequence[str]) -> Pictures:
        """Number the classes by their names; numbers are sorted as numbers."""
        classes = sorted(set(keys), key=lambda key: (0, int(key), key) if key.isdecimal() else (1, 0, key))
        number = {key: i for i, key in enumerate(classes)}
        return cls(root, list(files), np.array([number[key] for key in keys], dtype=np.int64), classes)

    def keep(self, indices: Sequence[int]) -> None:
        """Drop all pictures but these."""
        self.files, self.labels = [self.files[i] for i in indices], self.labels[list(indices)]
        if self.splits is not None:
            self.splits = self.splits[list(indices)]


def is_hidden(name: str) -> bool:
    """Whether a file or folder is of the system's making: thumbnails, notebooks' checkpoints, archives' extras."""
    return name.startswith('.') or name in ('__MACOSX', '@eaDir')


def check_encoding(names: Sequence[str]) -> None:
    """Raise an InputError for a file name that is not UTF-8: no list could hold it."""
    for name in names:
        try:
            name.encode('utf-8')
        except UnicodeEncodeError as e:
            raise InputError(f'The file name {os.fsencode(name)!r} is not UTF-8: rename it.') from e


def check_partial(names: Sequence[str], where: str) -> None:
    """Raise an InputError if a download tool's unfinished file is among the names."""
    if partial := [n for n in names if n.lower().endswith(PARTIAL_SUFFIXES)]:
        raise InputError(
            f"'{where}' is only half downloaded: there are unfinished files, {listing(partial)}. Complete the "
            'download, or remove them.'
        )


def read_source(source: str, root: str | None = None) -> Pictures:
    """Find pictures and their classes.

    Args:
        source (str): A folder with a folder of pictures for every class, or
            with such folders ``train``, ``test`` and perhaps ``val``; a
            ``.csv`` or ``.tsv`` table with the columns ``image`` and
            ``label``; MMEngine's ``.json``; or a list of
            ``relative/path label`` lines.
        root (str, optional): What the paths in a file are relative to.
            Defaults to None, the folder that it lies in.

    Returns:
        Pictures: None of them is read yet, all exist.

    Raises:
        InputError: There is nothing of this kind, or it has a fault; see
            :func:`read_folder`, :func:`read_splits`, :func:`read_label_table`, :func:`read_json_annotation`,
            :func:`read_list`. A file's name is not fit for a list.
    """
    pictures = _read_source(source, root)
    for file in pictures.files:
        if file != file.strip() or len(file.splitlines()) > 1:
            raise InputError(f'The file name {file!r} begins or ends with a space or has a line break: rename it.')
    return pictures


def _read_source(source: str, root: str | None) -> Pictures:
    if osp.isdir(source):
        if root is not None:
            raise InputError(f"--root '{root}' is for a table or list, but '{source}' is a folder: leave it out.")
        pictures = read_folder(source)
        if beside := sibling_splits(source):
            pictures.notes.append(
                f"Beside '{source}' there are {listing(beside)}, which are not used: to take them as they are, give "
                f"'{osp.dirname(osp.abspath(source))}'."
            )
        return pictures
    if not osp.isfile(source):
        raise InputError(
            f"'{source}' does not exist: give a folder with a folder of pictures for every class, a .csv file with "
            "the columns image and label, MMEngine's .json, or a list of `relative/path label` lines."
        )
    root = osp.abspath(root or osp.dirname(source) or '.')
    if source.lower().endswith(TABLE_SUFFIXES):
        return read_label_table(source, root)
    if source.lower().endswith('.json'):
        return read_json_annotation(source, root)
    if is_picture(source):
        raise InputError(f"'{source}' is a single picture: give the folder that has a folder for every class.")
    return read_list(source, root)


def read_folder(folder: str) -> Pictures:
    """Pictures by class folders; what lies deeper in one belongs to it, too.

    Where the folder has splits in place of classes, see :func:`read_splits`.

    Files that are no pictures are left out, and counted and named in the
    notes; so are pictures in hidden folders. Hidden files are left out.

    Args:
        folder (str): Its sub-folders are the classes.

    Returns:
        Pictures: Sorted by class and path.

    Raises:
        InputError: No class folders, an empty one, splits that do not fit
            together, pictures beside the class folders, unfinished downloads,
            or names that are not UTF-8.
    """
    folder, classes, beside = _look_into(folder)
    if splits := split_folders(folder, classes, is_picture):
        return read_splits(folder, splits, [e for e in (*classes, *beside) if e not in splits.values()])
    return _read_classes(folder, classes, beside)


def _look_into(folder: str) -> tuple[str, list[str], list[str]]:
    """Its full path, its sub-folders and its files."""
    folder = osp.abspath(folder)
    entries = sorted(e.name for e in os.scandir(folder) if not is_hidden(e.name))
    check_encoding([folder, *entries])
    classes = [e for e in entries if osp.isdir(osp.join(folder, e))]
    beside = [e for e in entries if e not in classes]
    if not classes:
        raise InputError(f"'{folder}' has no sub-folders: it needs a folder of pictures for every class.")
    if loose := [e for e in beside if is_picture(e)]:
        raise InputError(
            f"{len(loose)} pictures in '{folder}' lie beside the class folders, {listing(loose)}: move them into the "
            'folder of their class.'
        )
    return folder, classes, beside


def _read_classes(folder: str, classes: Sequence[str], beside: Sequence[str]) -> Pictures:
    files, keys, others, hidden = [], [], [*beside], list[str]()
    for name in tqdm(classes, desc='Class folders', mininterval=2, disable=None):
        files_there, special = files_below(folder, name)
        inside, unseen = _without_hidden(files_there)
        check_encoding([*inside, *special])
        own = [f for f in inside if is_picture(f)]
        more = [f for f in inside if not is_picture(f)] + special
        check_partial(more, osp.join(folder, name))
        if not own:
            found = f' ({no_pictures(more)[:-1]})' if more else ''
            raise InputError(
                f"The class folder '{osp.join(folder, name)}' has no pictures{found}: fill it or remove it."
            )
        files += own
        keys += [name] * len(own)
        others += more
        hidden += filter(is_picture, unseen)
    check_partial(beside, folder)
    pictures = Pictures.of(folder, files, keys)
    if others:
        pictures.notes.append(no_pictures(others))
    if hidden:
        check_encoding(hidden)
        pictures.notes.append(f'{len(hidden):,} pictures in hidden folders are left out: {listing(hidden)}.')
    return pictures


def _without_hidden(files: Sequence[str]) -> tuple[list[str], list[str]]:
    """Files to be seen, and those in hidden folders; hidden files are neither."""
    files = [f for f in files if not is_hidden(osp.basename(f))]
    hidden = [f for f in files if any(map(is_hidden, f.split(os.sep)))]
    return sorted(set(files).difference(hidden)), hidden


def read_splits(folder: str, splits: dict[str, str], others: Sequence[str] = ()) -> Pictures:
    """Pictures of splits, each with its class folders, as they are.

    Args:
        folder (str): Where they lie.
        splits (dict[str, str]): See :func:`split_folders`.
        others (Sequence[str]): What else lies there and is left out.
            Defaults to nothing.

    Returns:
        Pictures: Those of the test split first: where a picture is in training
        and test, the test keeps it.

    Raises:
        InputError: See :func:`read_folder`; a split has a class that is not
            trained.
    """
    parts = {}
    for kind in (kind for kind in ('test', 'val', 'train') if kind in splits):
        inside = _look_into(osp.join(folder, splits[kind]))
        check_doubled(*inside[:2], is_picture)
        parts[kind] = _read_classes(*inside)
    notes = compare_classes(
        folder, {splits[kind]: parts[kind].classes for kind in ('train', 'val', 'test') if kind in parts}
    )
    keys = [part.classes[label] for part in parts.values() for label in part.labels]
    pictures = Pictures.of(
        folder, [osp.join(splits[kind], file) for kind, part in parts.items() for file in part.files], keys
    )
    pictures.splits = np.repeat(list(parts), [len(part.files) for part in parts.values()])
    pictures.notes = [note for part in parts.values() for note in part.notes] + notes
    if others:
        pictures.notes.append(f'{len(others)} files or folders beside the splits are left out: {listing(others)}.')
    return pictures


def read_label_table(path: str, root: str) -> Pictures:
    """Pictures from the columns ``image`` and ``label`` of a table.

    Args:
        path (str): ``.csv`` or ``.tsv`` with a header, see
            :func:`read_table`.
        root (str): What its paths are relative to.

    Returns:
        Pictures: In the order of the table.

    Raises:
        InputError: No header, a column twice, an empty value, or listed files
            that are missing or no pictures.
    """
    files, keys = [], []
    for where, row in read_table(path, ('image', 'label')).select('image', 'label'):
        for column, value in row.items():
            if not value:
                raise InputError(f'{where}: the {column} is missing.')
        files.append(row['image'])
        keys.append(row['label'])
    return Pictures.of(root, _check_listed(path, root, files), keys)


def read_json_annotation(path: str, root: str) -> Pictures:
    """Pictures from an annotation in MMEngine's form.

    ``{"metainfo": {"classes": [...]}, "data_list": [{"img_path": "a.jpg",
    "gt_label": 0}, ...]}``; without class names, the labels' numbers are the
    classes.

    Args:
        path (str): ``.json`` file.
        root (str): What its paths are relative to.

    Returns:
        Pictures: In the order of the file; labels stay as they are.

    Raises:
        InputError: Another form, an entry without path or with another label
            than one of the classes, a class without pictures, or listed files
            that are missing or no pictures.
    """
    table = read_json(path)
    data = table.get('data_list') if isinstance(table, dict) else None
    if not isinstance(data, list) or not data:
        raise InputError(
            f"'{path}' lists no pictures: it must be "
            '{"metainfo": {"classes": [...]}, "data_list": [{"img_path": ..., "gt_label": ...}, ...]}.'
        )
    metainfo = table.get('metainfo') or {}
    names = metainfo.get('classes') if isinstance(metainfo, dict) else ()
    if names is not None and not (isinstance(names, list) and names and all(isinstance(c, str) for c in names)):
        raise InputError(f'\'{path}\': metainfo must be {{"classes": [names, in the order of labels]}}.')
    files, labels = [], []
    for i, entry in enumerate(data, 1):
        file, label = (entry.get(key) if isinstance(entry, dict) else None for key in ('img_path', 'gt_label'))
        if not isinstance(file, str) or not file:
            raise InputError(f"'{path}', data_list, entry {i} has no img_path.")
        # Without names the labels have no gaps, so there are no more of them than pictures.
        if type(label) is not int or not 0 <= label < len(names or data):
            raise InputError(
                f"'{path}', data_list, entry {i}: gt_label is {str(label)[:40]}, but must be the number of one class, "
                + (f'0 to {len(names) - 1}.' if names else '0, 1, 2, ... without gaps.')
            )
        files.append(file)
        labels.append(label)
    classes = names or [str(c) for c in range(max(labels) + 1)]
    if empty := sorted(set(range(len(classes))) - set(labels)):
        raise InputError(
            f"'{path}' has no picture of class '{classes[empty[0]]}': add some, or remove the class and renumber the "
            'labels.'
        )
    pictures = Pictures(root, _check_listed(path, root, files), np.array(labels), classes)
    if not names:
        pictures.notes.append(_NUMBERS_AS_NAMES)
    return pictures


def read_list(path: str, root: str) -> Pictures:
    """Pictures from ``relative/path label`` lines, labels from 0.

    Where every label has a folder of its own, the folder's name is the class;
    otherwise the label's number is.

    Args:
        path (str): Text file.
        root (str): What its paths are relative to.

    Returns:
        Pictures: In the order of the list; labels stay as they are.

    Raises:
        InputError: A line of another form, a label without pictures, or listed
            files that are missing or no pictures.
    """
    files, labels = parse_annotation(path)
    if not files:
        raise InputError(f"'{path}' lists no images.")
    present = np.unique(labels)
    if present.tolist() != list(range(len(present))):
        raise InputError(
            f"'{path}' has {len(present)} different labels from {present[0]} to {present[-1]}: number the classes "
            '0, 1, 2, ... without gaps.'
        )
    files = _check_listed(path, root, files)
    pairs = {(osp.basename(osp.dirname(file)), int(label)) for file, label in zip(files, labels)}
    one_each = len(pairs) == len(present) == len({folder for folder, _ in pairs if folder})
    names = {label: folder for folder, label in pairs}
    classes = [names[c] if one_each else str(c) for c in range(len(present))]
    pictures = Pictures(root, files, labels, classes)
    if not one_each:
        pictures.notes.append(_NUMBERS_AS_NAMES)
    return pictures


def _check_listed(path: str, root: str, files: Sequence[str]) -> list[str]:
    """The listed files, which are there, with the separators of this system."""
    stay_below(files, path)
    found = [existing(f, lambda name: osp.isfile(osp.join(root, name))) for f in files]
    if missing := [f for f, there in zip(files, found) if there is None]:
        raise InputError(
            f"'{path}' and the pictures disagree: {len(missing):,} of the {len(files):,} listed files are not in "
            f"'{root}', {listing(missing)}. Complete the download, or say by --root what the paths are relative to."
        )
    if others := [f for f in files if not is_picture(f)]:
        heic = ' (convert HEIC to JPEG: Pillow cannot open it)' if others[0].lower().endswith(HEIC_SUFFIXES) else ''
        raise InputError(
            f"'{path}' lists {len(others):,} files that are no pictures, {listing(others)}: remove these lines{heic}."
        )
    return found

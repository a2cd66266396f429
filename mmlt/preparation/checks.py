"""Downloaded data sets: what they have to hold, and whether they do."""

from __future__ import annotations

import os.path as osp
from collections import Counter
from collections.abc import Callable, KeysView, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import open_clip
from mmpretrain.datasets import CIFAR10

from mmlt.checkpoints import write_text
from mmlt.datasets.cifar_lt import CIFAR10LT, CIFAR100LT
from mmlt.datasets.inaturalist import INaturalist2018
from mmlt.datasets.long_tailed_dataset import parse_annotation
from mmlt.datasets.pictures import listing
from mmlt.datasets.texts.class_names import PLACE, read_class_names
from mmlt.errors import InputError
from mmlt.evaluation.functional import SHOTS, get_protocol, shot_groups
from mmlt.preparation.file_checks import check_files, check_label_folders, check_sums, partial_downloads
from mmlt.preparation.published import published_facts
from mmlt.utils.long_tail import exponential_profile
from mmlt.utils.text_files import read_lines


@dataclass(frozen=True)
class Download:
    """A data set as it is published, and how it is read.

    Args:
        title (str): Its name.
        num_classes (int): C.
        images (dict[str, int]): Images of every split, 'train' first.
        shots (tuple[int, int, int], optional): Many, medium and few-shot
            classes. Defaults to None, not compared.
        read (Callable): Fills :class:`Contents` from a root folder.
        per_class (dict[str, int]): Images of every class in balanced splits.
            Defaults to none.
        largest (int, optional): Training images of the largest class.
            Defaults to None, not compared.
        smallest (int, optional): The same of the smallest.
        protocol (str): Of the shots. Defaults to 'standard'.
        known (dict[int, str]): What another number of images means.
            Defaults to none.
        checksums (dict[str, str]): Published MD5 sums of files that are
            compared if they lie in the folder. Defaults to none.
        note (str): Said with every report. Defaults to ''.
    """

    title: str
    num_classes: int
    images: dict[str, int]
    shots: tuple[int, int, int] | None
    read: Callable[[Download, str, Contents], None]
    per_class: dict[str, int] = field(default_factory=dict)
    largest: int | None = None
    smallest: int | None = None
    protocol: str = 'standard'
    known: dict[int, str] = field(default_factory=dict)
    checksums: dict[str, str] = field(default_factory=dict)
    note: str = ''


@dataclass
class Contents:
    """What a folder was found to hold.

    Args:
        classes (Sequence[str]): Class names. Defaults to none.
        counts (np.ndarray, optional): Training images of every class, (C, ).
            Defaults to None, not known.
        splits (dict[str, tuple]): Of every split the files, and the labels:
            one number each, or an array each with several labels an image.
            Defaults to none.
        folders (dict[str, str]): Of every split the folder that its files are
            relative to. Defaults to none.
        problems (list[str]): What is wrong, a sentence each. Defaults to none.
    """

    classes: Sequence[str] = ()
    counts: np.ndarray | None = None
    splits: dict[str, tuple[list[str], np.ndarray | list[np.ndarray]]] = field(default_factory=dict)
    folders: dict[str, str] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    def attempt(self, read: Callable, *args):
        """Call a reader; an InputError becomes a problem, and the result None."""
        try:
            return read(*args)
        except InputError as e:
            self.problems.append(str(e))
            return None


def check_contents(download: Download, root: str, decode: bool = False) -> Contents:
    """Compare a downloaded folder with what is published.

    Args:
        download (Download): What is expected.
        root (str): The folder.
        decode (bool): Read every picture, too. Defaults to False: that it is
            there and not empty.

    Returns:
        Contents: What was found, with all problems.

    Raises:
        InputError: The folder does not exist.
    """
    if not osp.isdir(root):
        raise InputError(f"The folder '{root}' does not exist: give the one that holds {download.title}.")
    contents = Contents()
    contents.problems += partial_downloads(root)
    present = {name: md5 for name, md5 in download.checksums.items() if osp.isfile(osp.join(root, name))}
    contents.problems += check_sums(root, present, download.title)
    download.read(download, root, contents)
    compare_statistics(download, contents)
    contents.problems += check_repeats(contents, download.title)
    for split, (files, _) in contents.splits.items():
        contents.problems += check_files(contents.folders[split], files, f'{download.title}, {split}', decode)
    return contents


def check_repeats(contents: Contents, what: str) -> list[str]:
    """Look for pictures that stand twice in a list, or in two lists.

    Args:
        contents (Contents): With its splits.
        what (str): Said in the problems.

    Returns:
        list[str]: Problems.
    """
    problems, seen = [], dict[str, KeysView[str]]()
    for split, (files, _) in contents.splits.items():
        paths = Counter(osp.normpath(osp.join(contents.folders[split], f)) for f in files)
        if twice := [path for path, number in paths.items() if number > 1]:
            problems.append(f'{what}, {split}: {len(twice):,} pictures are listed more than once, {listing(twice)}.')
        for other, known in seen.items():
            if both := sorted(known & paths.keys()):
                problems.append(
                    f'{what}: {len(both):,} pictures are in {other} and in {split}, {listing(both)}: the splits must '
                    'share none.'
                )
        seen[split] = paths.keys()
    return problems


def compare_statistics(download: Download, contents: Contents) -> None:
    """Compare numbers of images and classes; a mismatch is explained in the problems."""
    say = contents.problems.append
    if contents.classes and len(contents.classes) != download.num_classes:
        say(f'{download.title} has {download.num_classes:,} classes, but here are {len(contents.classes):,} names.')
    for split, (files, labels) in contents.splits.items():
        if len(files) != download.images[split]:
            say(explain_number(download, split, len(files)))
        elif split in download.per_class:
            number = download.per_class[split]
            counts = np.bincount(labels, minlength=download.num_classes)
            if (wrong := np.flatnonzero(counts != number)).size:
                say(
                    f'{download.title}, {split}: every class has {number} images, but class {wrong[0]} has '
                    f'{counts[wrong[0]]} ({len(wrong):,} classes differ): the list was changed.'
                )
    counts = contents.counts
    if counts is None or len(contents.splits.get('train', ([],))[0]) not in (0, download.images['train']):
        return  # another number of images is said already
    if len(counts) != download.num_classes or not counts.all():
        say(
            f'{download.title}: {int((counts > 0).sum()):,} classes have training images, but there are '
            f'{download.num_classes:,}: the list and the class names are of different versions.'
        )
    elif download.shots is not None:
        groups = shot_groups(counts, get_protocol(download.protocol))
        found = tuple(int((groups == i).sum()) for i in range(len(SHOTS)))
        largest, smallest = int(counts.max()), int(counts.min())
        expected = (download.shots, download.largest or largest, download.smallest or smallest)
        if (found, largest, smallest) != expected:
            say(
                f'{download.title}, train: the number of images is right, but many / medium / few are '
                f'{" / ".join(map(str, found))} in place of {" / ".join(map(str, download.shots))}, and the classes '
                f'have {smallest} to {largest} images: this is another long-tailed selection than the published one.'
            )


def explain_number(download: Download, split: str, found: int) -> str:
    """A sentence on a number of images that is not the published one.

    Args:
        download (Download): What is expected.
        split (str): Whose number it is.
        found (int): The number.

    Returns:
        str: With the reason, as far as numbers tell it.
    """
    expected = download.images[split]
    twins = [s for s, n in download.images.items() if n == found and s != split]
    if found in download.known:
        why = download.known[found]
    elif twins:
        why = f'that is the number of {twins[0]}: two lists are exchanged'
    elif found < expected:
        why = f'{expected - found:,} are missing: the list is probably cut off; download it again'
    else:
        why = 'this is another version of the list'
    return f'{download.title}, {split}: {expected:,} images are expected and {found:,} listed; {why}.'


def write_annotation(contents: Contents, out: str) -> list[str]:
    """Write what was found as our lists: ``<split>.txt`` and ``classes.txt``.

    Args:
        contents (Contents): Of :func:`check_contents`.
        out (str): Folder to write to.

    Returns:
        list[str]: The files.

    Raises:
        InputError: The data set has no files to list.
    """
    if not contents.splits:
        raise InputError('This data set lies in a few packed files and has no list of pictures: leave out --out.')
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    texts = {'classes.txt': [str(name) for name in contents.classes]}
    for split, (files, labels) in contents.splits.items():
        texts[f'{split}.txt'] = [' '.join([f, *map(str, np.atleast_1d(y))]) for f, y in zip(files, labels)]
    for name, lines in texts.items():
        write_text(folder / name, ''.join(f'{line}\n' for line in lines))
    return [str(folder / name) for name in texts]


def _take_lists(contents: Contents, download: Download, root: str, lists: dict[str, str]) -> None:
    for split, name in lists.items():
        if not osp.isfile(osp.join(root, name)):
            contents.problems.append(f"{download.title}: the list '{name}' is missing in '{root}'.")
        elif (found := contents.attempt(parse_annotation, osp.join(root, name))) is not None:
            _take_split(contents, download, root, split, *found)


def _take_split(contents: Contents, download: Download, folder: str, split: str, files, labels: np.ndarray) -> None:
    """Note a split whose labels are in range."""
    if len(labels) and (labels.min() < 0 or labels.max() >= download.num_classes):
        wrong = int(np.flatnonzero((labels < 0) | (labels >= download.num_classes))[0])
        contents.problems.append(
            f"{download.title}, {split}: '{files[wrong]}' has label {labels[wrong]}, but labels are 0 to "
            f'{download.num_classes - 1}.'
        )
        return
    contents.splits[split], contents.folders[split] = (files, labels), folder
    if split == 'train':
        contents.counts = np.bincount(labels, minlength=download.num_classes)
        contents.problems += check_label_folders(files, labels, f'{download.title}, {split}')


def read_imagenet_lt(download: Download, root: str, contents: Contents) -> None:
    """Lists of the OLTR project; the class names are CLIP's, in the order of the WordNet ids."""
    contents.classes = tuple(open_clip.IMAGENET_CLASSNAMES)
    _take_lists(contents, download, root, {s: f'ImageNet_LT_{s}.txt' for s in download.images})
    if 'train' not in contents.splits:
        return
    files, labels = contents.splits['train']
    ids = {int(y): osp.basename(osp.dirname(f)) for f, y in zip(files, labels)}
    in_order = [ids[y] for y in sorted(ids)]
    if in_order != sorted(in_order):
        contents.problems.append(
            f"{download.title}: the labels are not in the order of the class folders' names, so CLIP's class names "
            "(classes='imagenet') would be wrong: take the OLTR project's lists."
        )


def read_places_lt(download: Download, root: str, contents: Contents) -> None:
    """Lists of the OLTR project, and Places365's class list."""
    _take_lists(contents, download, root, {s: f'Places_LT_{s}.txt' for s in download.images})
    path = osp.join(root, 'categories_places365.txt')
    names = contents.attempt(read_class_names, path)
    if names is None:
        return
    contents.classes = names
    if 'train' not in contents.splits:
        return
    lines = map(PLACE.fullmatch, map(str.strip, read_lines(path)))
    label_of = {f'{place[1]}/{place[2]}': int(place[3]) for place in lines if place}
    for file, label in zip(*contents.splits['train']):
        place = osp.dirname(file).split('/', 1)[-1]  # without data_256/
        if label_of.get(place, label) != label:
            contents.problems.append(
                f"{download.title}: '{file}' has label {label} in the list, but categories_places365.txt says "
                f'{label_of[place]}: they are of different versions.'
            )
            return


def _inat18(root: str, names: str | None) -> INaturalist2018:
    return INaturalist2018('train2018.json', classes=names, data_root=root, lazy_init=True)


def read_inat18(download: Download, root: str, contents: Contents) -> None:
    """The competition's JSON files, and the species' names."""
    names: str | None = 'categories.json'
    if not osp.isfile(osp.join(root, names)):
        contents.problems.append(
            f"{download.title}: '{names}' with the species' names is missing in '{root}'; without it prompts hold "
            'numbers.'
        )
        names = None
    # One reader for both splits: it compares their categories.
    reader = contents.attempt(_inat18, root, names)
    if reader is None:  # the names are broken
        reader = _inat18(root, None)
    for split in download.images:
        found = contents.attempt(reader.read_annotation, osp.join(root, f'{split}2018.json'))
        if found is not None:
            _take_split(contents, download, root, split, *found)
    contents.classes = reader.CLASSES or ()


def cifar_reader(dataset: type[CIFAR10]) -> Callable[[Download, str, Contents], None]:
    """A reader for CIFAR's packed files, whose checksums are published.

    Args:
        dataset (type): ``CIFAR10LT`` or ``CIFAR100LT``.

    Returns:
        Callable: The long tail follows from files that are right, by the
        formula of :func:`exponential_profile` with a ratio of 100.
    """

    def read(download: Download, root: str, contents: Contents) -> None:
        folder = osp.join(root, dataset.base_folder)
        sums = dict([*dataset.train_list, *dataset.test_list, (dataset.meta['filename'], dataset.meta['md5'])])
        if missing := [n for n in sums if not osp.isfile(osp.join(folder, n))]:
            archive = osp.join(root, dataset.filename)
            remedy = f"unpack '{archive}'" if osp.isfile(archive) else f'fetch {dataset.url} and unpack it there'
            contents.problems.append(
                f"{download.title}: {len(missing)} of {len(sums)} files are missing in '{folder}', "
                f'{listing(missing)}: {remedy}.'
            )
        present = {name: md5 for name, md5 in sums.items() if name not in missing}
        wrong = check_sums(folder, present, download.title)
        contents.problems += wrong
        if not missing and not wrong:
            contents.classes = tuple(c.replace('_', ' ') for c in dataset.METAINFO['classes'])
            contents.counts = np.array(
                exponential_profile(50000 // download.num_classes, 100, download.num_classes), dtype=np.int64
            )

    return read


def published(name: str, read: Callable[[Download, str, Contents], None]) -> Download:
    """A data set of ``checks.yml``.

    Args:
        name (str): Its key there.
        read (Callable): See :class:`Download`.
    """
    facts = dict(published_facts()[name])
    return Download(read=read, **{**facts, 'shots': tuple(facts['shots']) if 'shots' in facts else None})


DOWNLOADS: dict[str, Download] = {
    name: published(name, read)
    for name, read in (
        ('imagenet-lt', read_imagenet_lt),
        ('places-lt', read_places_lt),
        ('inat18', read_inat18),
        ('cifar10-lt', cifar_reader(CIFAR10LT)),
        ('cifar100-lt', cifar_reader(CIFAR100LT)),
    )
}

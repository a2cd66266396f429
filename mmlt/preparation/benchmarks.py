"""Downloaded benchmarks: what they have to hold, and whether they do."""

from __future__ import annotations

import hashlib
import os
import os.path as osp
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import open_clip
from tqdm import tqdm

from mmlt.datasets.cifar_lt import CIFAR10LT, CIFAR100LT
from mmlt.datasets.inaturalist import INaturalist2018
from mmlt.datasets.long_tailed_dataset import parse_annotation
from mmlt.datasets.pictures import listing, read_error
from mmlt.datasets.texts.class_names import PLACE, read_class_names
from mmlt.datasets.texts.files import read_lines
from mmlt.errors import InputError
from mmlt.evaluation.functional import SHOTS, get_protocol, shot_groups
from mmlt.preparation.picture_sources import PARTIAL_SUFFIXES
from mmlt.utils.long_tail import exponential_profile


@dataclass(frozen=True)
class Benchmark:
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
    read: Callable[[Benchmark, str, Contents], None]
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
    splits: dict[str, tuple[list[str], Sequence]] = field(default_factory=dict)
    folders: dict[str, str] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    def attempt(self, read: Callable, *args):
        """Call a reader; an InputError becomes a problem, and the result None."""
        try:
            return read(*args)
        except InputError as e:
            self.problems.append(str(e))
            return None


def check_benchmark(benchmark: Benchmark, root: str, decode: bool = False) -> Contents:
    """Compare a downloaded folder with what is published.

    Args:
        benchmark (Benchmark): What is expected.
        root (str): The folder.
        decode (bool): Read every picture, too. Defaults to False: that it is
            there and not empty.

    Returns:
        Contents: What was found, with all problems.

    Raises:
        InputError: The folder does not exist.
    """
    if not osp.isdir(root):
        raise InputError(f"The folder '{root}' does not exist: give the one that holds {benchmark.title}.")
    contents = Contents()
    contents.problems += partial_downloads(root)
    present = {name: md5 for name, md5 in benchmark.checksums.items() if osp.isfile(osp.join(root, name))}
    contents.problems += check_sums(root, present, benchmark.title)
    benchmark.read(benchmark, root, contents)
    compare_statistics(benchmark, contents)
    contents.problems += check_repeats(contents, benchmark.title)
    for split, (files, _) in contents.splits.items():
        contents.problems += check_files(contents.folders[split], files, f'{benchmark.title}, {split}', decode)
    return contents


def partial_downloads(folder: str) -> list[str]:
    """A problem if a download tool's unfinished file lies in a folder."""
    if names := sorted(n for n in os.listdir(folder) if n.lower().endswith(PARTIAL_SUFFIXES)):
        return [f"'{folder}' is only half downloaded: there are unfinished files, {listing(names)}."]
    return []


def check_sums(folder: str, sums: dict[str, str], what: str) -> list[str]:
    """Compare files with their published MD5 sums.

    Args:
        folder (str): Where they lie.
        sums (dict[str, str]): Files that are there, and their sums.
        what (str): Said in the problem, and beside the progress bar.

    Returns:
        list[str]: A problem if there are wrong ones.
    """
    paths = {name: osp.join(folder, name) for name in sums}
    total, wrong = sum(map(osp.getsize, paths.values())), []
    with tqdm(total=total, desc=f'{what}, MD5', unit='B', unit_scale=True, mininterval=2, disable=None) as bar:
        for name, path in paths.items():
            digest = hashlib.md5(usedforsecurity=False)
            with open(path, 'rb') as f:
                while chunk := f.read(2**22):
                    digest.update(chunk)
                    bar.update(len(chunk))
            if digest.hexdigest() != sums[name]:
                wrong.append(name)
    if not wrong:
        return []
    return [
        f"{what}: {len(wrong)} files in '{folder}' have another MD5 sum than the published ones, {listing(wrong)}: "
        'they are cut off or damaged; download them again.'
    ]


def check_repeats(contents: Contents, what: str) -> list[str]:
    """Look for pictures that stand twice in a list, or in two lists.

    Args:
        contents (Contents): With its splits.
        what (str): Said in the problems.

    Returns:
        list[str]: Problems.
    """
    problems, seen = [], {}
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


def compare_statistics(benchmark: Benchmark, contents: Contents) -> None:
    """Compare numbers of images and classes; a mismatch is explained in the problems."""
    say = contents.problems.append
    if contents.classes and len(contents.classes) != benchmark.num_classes:
        say(f'{benchmark.title} has {benchmark.num_classes:,} classes, but here are {len(contents.classes):,} names.')
    for split, (files, labels) in contents.splits.items():
        if len(files) != benchmark.images[split]:
            say(explain_number(benchmark, split, len(files)))
        elif split in benchmark.per_class:
            number = benchmark.per_class[split]
            counts = np.bincount(labels, minlength=benchmark.num_classes)
            if (wrong := np.flatnonzero(counts != number)).size:
                say(
                    f'{benchmark.title}, {split}: every class has {number} images, but class {wrong[0]} has '
                    f'{counts[wrong[0]]} ({len(wrong):,} classes differ): the list was changed.'
                )
    counts = contents.counts
    if counts is None or len(contents.splits.get('train', ([],))[0]) not in (0, benchmark.images['train']):
        return  # another number of images is said already
    if len(counts) != benchmark.num_classes or not counts.all():
        say(
            f'{benchmark.title}: {int((counts > 0).sum()):,} classes have training images, but there are '
            f'{benchmark.num_classes:,}: the list and the class names are of different versions.'
        )
    elif benchmark.shots is not None:
        groups = shot_groups(counts, get_protocol(benchmark.protocol))
        found = tuple(int((groups == i).sum()) for i in range(len(SHOTS)))
        largest, smallest = int(counts.max()), int(counts.min())
        expected = (benchmark.shots, benchmark.largest or largest, benchmark.smallest or smallest)
        if (found, largest, smallest) != expected:
            say(
                f'{benchmark.title}, train: the number of images is right, but many / medium / few are '
                f'{" / ".join(map(str, found))} in place of {" / ".join(map(str, benchmark.shots))}, and the classes '
                f'have {smallest} to {largest} images: this is another long-tailed selection than the published one.'
            )


def explain_number(benchmark: Benchmark, split: str, found: int) -> str:
    """A sentence on a number of images that is not the published one.

    Args:
        benchmark (Benchmark): What is expected.
        split (str): Whose number it is.
        found (int): The number.

    Returns:
        str: With the reason, as far as numbers tell it.
    """
    expected = benchmark.images[split]
    twins = [s for s, n in benchmark.images.items() if n == found and s != split]
    if found in benchmark.known:
        why = benchmark.known[found]
    elif twins:
        why = f'that is the number of {twins[0]}: two lists are exchanged'
    elif found < expected:
        why = f'{expected - found:,} are missing: the list is probably cut off; download it again'
    else:
        why = 'this is another version of the list'
    return f'{benchmark.title}, {split}: {expected:,} images are expected and {found:,} listed; {why}.'


def check_files(folder: str, files: Sequence[str], what: str, decode: bool = False) -> list[str]:
    """Look for listed pictures that are missing, empty or, on request, unreadable.

    Every folder is listed once, in threads: asking for half a million files
    one by one takes long on a network disk.

    Args:
        folder (str): What the files are relative to.
        files (Sequence[str]): The pictures.
        what (str): Said in the problems.
        decode (bool): Read every picture. Defaults to False.

    Returns:
        list[str]: Problems.
    """
    by_folder: dict[str, list[str]] = {}
    for file in files:
        by_folder.setdefault(osp.dirname(file), []).append(osp.basename(file))

    def look(place: str) -> tuple[list[str], list[str]]:
        path = osp.join(folder, place)
        # A link to nothing is no file.
        sizes = {e.name: e.stat().st_size for e in os.scandir(path) if e.is_file()} if osp.isdir(path) else {}
        names = by_folder[place]
        missing, empty = [n for n in names if n not in sizes], [n for n in names if sizes.get(n) == 0]
        return [osp.join(place, n) for n in missing], [osp.join(place, n) for n in empty]

    with ThreadPoolExecutor(8) as pool:
        bar = tqdm(
            pool.map(look, by_folder), total=len(by_folder), desc=what, unit='folder', mininterval=2, disable=None
        )
        found = list(bar)
        missing, empty = ([f for pair in found for f in pair[i]] for i in (0, 1))
        problems = []
        if missing:
            whole = [p for p, (lost, _) in zip(by_folder, found) if len(lost) == len(by_folder[p])]
            hint = f' {len(whole):,} folders have none of theirs.' if whole else ''
            problems.append(
                f"{what}: {len(missing):,} of the {len(files):,} listed pictures are not in '{folder}', "
                f'{listing(missing)}.{hint} Complete the download, or unpack it there.'
            )
        if empty:
            problems.append(
                f'{what}: {len(empty):,} pictures are empty files, {listing(empty)}: the disk was full or the download '
                'broke off; fetch them again.'
            )
        if decode:
            bad = set(missing) | set(empty)
            rest = [f for f in files if f not in bad]
            errors = pool.map(lambda f: read_error(osp.join(folder, f)), rest)
            errors = list(tqdm(errors, total=len(rest), desc=f'{what}, reading', mininterval=2, disable=None))
            if broken := [f for f, error in zip(rest, errors) if error]:
                problems.append(
                    f'{what}: {len(broken):,} pictures cannot be read, {listing(broken)}: fetch them again.'
                )
    return problems


def check_label_folders(files: Sequence[str], labels: Sequence[int], what: str) -> list[str]:
    """Compare labels with the pictures' folders, which are one a class.

    Args:
        files (Sequence[str]): The pictures.
        labels (Sequence[int]): Their labels.
        what (str): Said in the problems.

    Returns:
        list[str]: A problem if a folder has two labels, or a label two folders.
    """
    label_of: dict[str, int] = {}
    folder_of: dict[int, str] = {}
    for file, label in zip(files, labels):
        folder = osp.dirname(file)
        if (known := label_of.setdefault(folder, int(label))) != label:
            return [f"{what}: '{file}' has label {label}, but other pictures of its folder have label {known}."]
        if (place := folder_of.setdefault(int(label), folder)) != folder:
            return [f"{what}: label {label} is given to pictures in '{place}' and in '{folder}'."]
    return []


def write_annotation(contents: Contents, out: str) -> list[str]:
    """Write what was found as our lists: ``<split>.txt`` and ``classes.txt``.

    Args:
        contents (Contents): Of :func:`check_benchmark`.
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
        (folder / name).write_text(''.join(f'{line}\n' for line in lines), encoding='utf-8')
    return [str(folder / name) for name in texts]


def _take_lists(contents: Contents, benchmark: Benchmark, root: str, lists: dict[str, str]) -> None:
    for split, name in lists.items():
        if not osp.isfile(osp.join(root, name)):
            contents.problems.append(f"{benchmark.title}: the list '{name}' is missing in '{root}'.")
        elif (found := contents.attempt(parse_annotation, osp.join(root, name))) is not None:
            _take_split(contents, benchmark, root, split, *found)


def _take_split(contents: Contents, benchmark: Benchmark, folder: str, split: str, files, labels: np.ndarray) -> None:
    """Note a split whose labels are in range."""
    if len(labels) and (labels.min() < 0 or labels.max() >= benchmark.num_classes):
        wrong = int(np.flatnonzero((labels < 0) | (labels >= benchmark.num_classes))[0])
        contents.problems.append(
            f"{benchmark.title}, {split}: '{files[wrong]}' has label {labels[wrong]}, but labels are 0 to "
            f'{benchmark.num_classes - 1}.'
        )
        return
    contents.splits[split], contents.folders[split] = (files, labels), folder
    if split == 'train':
        contents.counts = np.bincount(labels, minlength=benchmark.num_classes)
        contents.problems += check_label_folders(files, labels, f'{benchmark.title}, {split}')


def read_imagenet_lt(benchmark: Benchmark, root: str, contents: Contents) -> None:
    """Lists of the OLTR project; the class names are CLIP's, in the order of the WordNet ids."""
    contents.classes = tuple(open_clip.IMAGENET_CLASSNAMES)
    _take_lists(contents, benchmark, root, {s: f'ImageNet_LT_{s}.txt' for s in benchmark.images})
    if 'train' not in contents.splits:
        return
    files, labels = contents.splits['train']
    ids = {int(y): osp.basename(osp.dirname(f)) for f, y in zip(files, labels)}
    in_order = [ids[y] for y in sorted(ids)]
    if in_order != sorted(in_order):
        contents.problems.append(
            f"{benchmark.title}: the labels are not in the order of the class folders' names, so CLIP's class names "
            "(classes='imagenet') would be wrong: take the OLTR project's lists."
        )


def read_places_lt(benchmark: Benchmark, root: str, contents: Contents) -> None:
    """Lists of the OLTR project, and Places365's class list."""
    _take_lists(contents, benchmark, root, {s: f'Places_LT_{s}.txt' for s in benchmark.images})
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
                f"{benchmark.title}: '{file}' has label {label} in the list, but categories_places365.txt says "
                f'{label_of[place]}: they are of different versions.'
            )
            return


def _inat18(root: str, names: str | None) -> INaturalist2018:
    return INaturalist2018('train2018.json', classes=names, data_root=root, lazy_init=True)


def read_inat18(benchmark: Benchmark, root: str, contents: Contents) -> None:
    """The competition's JSON files, and the species' names."""
    names: str | None = 'categories.json'
    if not osp.isfile(osp.join(root, names)):
        contents.problems.append(
            f"{benchmark.title}: '{names}' with the species' names is missing in '{root}'; without it prompts hold "
            'numbers.'
        )
        names = None
    # One reader for both splits: it compares their categories.
    reader = contents.attempt(_inat18, root, names)
    if reader is None:  # the names are broken
        reader = _inat18(root, None)
    for split in benchmark.images:
        found = contents.attempt(reader.read_annotation, osp.join(root, f'{split}2018.json'))
        if found is not None:
            _take_split(contents, benchmark, root, split, *found)
    contents.classes = reader.CLASSES or ()


def cifar_reader(dataset: type) -> Callable[[Benchmark, str, Contents], None]:
    """A reader for CIFAR's packed files, whose checksums are published.

    Args:
        dataset (type): ``CIFAR10LT`` or ``CIFAR100LT``.

    Returns:
        Callable: The long tail follows from files that are right, by the
        formula of :func:`exponential_profile` with a ratio of 100.
    """

    def read(benchmark: Benchmark, root: str, contents: Contents) -> None:
        folder = osp.join(root, dataset.base_folder)
        sums = dict([*dataset.train_list, *dataset.test_list, (dataset.meta['filename'], dataset.meta['md5'])])
        if missing := [n for n in sums if not osp.isfile(osp.join(folder, n))]:
            archive = osp.join(root, dataset.filename)
            remedy = f"unpack '{archive}'" if osp.isfile(archive) else f'fetch {dataset.url} and unpack it there'
            contents.problems.append(
                f"{benchmark.title}: {len(missing)} of {len(sums)} files are missing in '{folder}', "
                f'{listing(missing)}: {remedy}.'
            )
        present = {name: md5 for name, md5 in sums.items() if name not in missing}
        wrong = check_sums(folder, present, benchmark.title)
        contents.problems += wrong
        if not missing and not wrong:
            contents.classes = tuple(c.replace('_', ' ') for c in dataset.METAINFO['classes'])
            contents.counts = np.array(
                exponential_profile(50000 // benchmark.num_classes, 100, benchmark.num_classes), dtype=np.int64
            )

    return read


BENCHMARKS: dict[str, Benchmark] = {
    'imagenet-lt': Benchmark(
        'ImageNet-LT',
        1000,
        dict(train=115846, val=20000, test=50000),
        (385, 479, 136),
        read_imagenet_lt,
        per_class=dict(val=20, test=50),
        largest=1280,
        smallest=5,
        known={1281167: 'that is the whole ImageNet (ILSVRC 2012), not its long-tailed part'},
    ),
    'places-lt': Benchmark(
        'Places-LT',
        365,
        dict(train=62500, val=7300, test=36500),
        (131, 163, 71),
        read_places_lt,
        per_class=dict(val=20, test=100),
        largest=4980,
        smallest=5,
        known={1803460: 'that is the whole Places365-Standard, not its long-tailed part'},
        # As in torchvision/datasets/places365.py.
        checksums={'categories_places365.txt': '06c963b85866bd0649f97cb43dd16673'},
        note="BALLAD's paper gives Places-LT 184.5 K training images; this is a slip, the list in use has 62,500.",
    ),
    'inat18': Benchmark(
        'iNaturalist 2018',
        8142,
        dict(train=437513, val=24426),
        (842, 4076, 3224),
        read_inat18,
        per_class=dict(val=3),
        largest=1000,
        smallest=2,
        known={
            579184: 'that is the release of 2017',
            265213: 'that is the release of 2019',
            2686843: 'that is the release of 2021',
        },
        # Published at github.com/visipedia/inat_comp, 2018/README.md.
        checksums={
            'train2018.json.tar.gz': 'bfa29d89d629cbf04d826a720c0a68b0',
            'val2018.json.tar.gz': 'f2ed8bfe3e9901cdefceb4e53cd3775d',
            'train_val2018.tar.gz': 'b1c6952ce38f31868cc50ea72d066cc3',
        },
    ),
    'cifar10-lt': Benchmark(
        'CIFAR-10-LT, ratio 100', 10, dict(train=12406), None, cifar_reader(CIFAR10LT), largest=5000, smallest=50
    ),
    'cifar100-lt': Benchmark(
        'CIFAR-100-LT, ratio 100',
        100,
        dict(train=10847),
        (35, 35, 30),
        cifar_reader(CIFAR100LT),
        largest=500,
        smallest=5,
    ),
}

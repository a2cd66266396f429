"""Whether downloaded files are all there, whole, and what they say."""

from __future__ import annotations

import os
import os.path as osp
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
from tqdm import tqdm
from tqdm.utils import CallbackIOWrapper

from mmlt.datasets.pictures import listing, read_error
from mmlt.preparation.picture_sources import PARTIAL_SUFFIXES
from mmlt.utils import digest


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
            with open(path, 'rb') as f:
                chunks = iter(partial(CallbackIOWrapper(bar.update, f, 'read').read, 2**22), b'')
                if digest(chunks, size=16, kind='md5') != sums[name]:
                    wrong.append(name)
    if not wrong:
        return []
    return [
        f"{what}: {len(wrong)} files in '{folder}' have another MD5 sum than the published ones, {listing(wrong)}: "
        'they are cut off or damaged; download them again.'
    ]


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
            read = pool.map(lambda f: read_error(osp.join(folder, f)), rest)
            errors = list(tqdm(read, total=len(rest), desc=f'{what}, reading', mininterval=2, disable=None))
            if broken := [f for f, error in zip(rest, errors) if error]:
                problems.append(
                    f'{what}: {len(broken):,} pictures cannot be read, {listing(broken)}: fetch them again.'
                )
    return problems


def check_label_folders(files: Sequence[str], labels: np.ndarray | Sequence[int], what: str) -> list[str]:
    """Compare labels with the pictures' folders, which are one a class.

    Args:
        files (Sequence[str]): The pictures.
        labels (np.ndarray | Sequence[int]): Their labels.
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

"""Pictures on the disk are looked for folder by folder, and none that is missing gets through."""

import os

import pytest

from mmlt import InputError
from mmlt.datasets import picture_files
from mmlt.datasets.picture_files import FEWEST_LISTED, image_paths


@pytest.fixture
def folder(tmp_path):
    """``many`` with 40 pictures, ``few`` with 3."""
    for name, number in (('many', 40), ('few', 3)):
        (tmp_path / name).mkdir()
        for i in range(number):
            (tmp_path / name / f'{i}.png').touch()
    return tmp_path


@pytest.fixture
def asked(monkeypatch):
    """What the disk is asked for."""
    names, exists = [], os.path.isfile

    def counting(path):
        names.append(os.path.basename(path))
        return exists(path)

    monkeypatch.setattr(os.path, 'isfile', counting)
    return names


MANY = [f'many/{i}.png' for i in range(40)]
FEW = [f'few/{i}.png' for i in range(3)]


def test_a_folder_is_listed_once(folder, asked):
    paths = image_paths(str(folder), [*MANY, *FEW, *MANY], 'list.txt')
    assert paths == [str(folder / name) for name in (*MANY, *FEW, *MANY)]
    assert asked == ['0.png', '1.png', '2.png']  # those of the folder with few


def test_without_a_prefix(folder, asked, monkeypatch):
    monkeypatch.chdir(folder / 'many')
    assert image_paths('', [f'{i}.png' for i in range(40)], 'list.txt') == [f'{i}.png' for i in range(40)]
    monkeypatch.chdir(folder)
    assert image_paths('', MANY, 'list.txt') == MANY
    assert image_paths('many/../many/', [f'./{i}.png' for i in range(40)], 'list.txt')[3].endswith('3.png')


@pytest.mark.parametrize('names', [MANY, FEW])
def test_missing_pictures_are_counted_and_the_first_named(folder, names):
    (folder / names[1]).unlink()
    (folder / names[2]).unlink()
    with pytest.raises(InputError, match=rf"2 of the {len(names)} images .*the first is '.*{names[1]}'"):
        image_paths(str(folder), names, 'list.txt')


def test_a_folder_that_is_missing(folder):
    with pytest.raises(InputError, match="40 of the 40 images .*the first is '.*none/0.png'"):
        image_paths(str(folder), [name.replace('many', 'none') for name in MANY], 'list.txt')


def test_links_are_followed(folder, asked):
    (folder / 'many' / '5.png').unlink()
    (folder / 'many' / '5.png').symlink_to(folder / 'few' / '0.png')
    (folder / 'linked').symlink_to(folder / 'many')
    linked = [name.replace('many', 'linked') for name in MANY]
    assert image_paths(str(folder), linked, 'list.txt')[5] == str(folder / 'linked' / '5.png')
    assert asked == ['5.png']
    (folder / 'few' / '0.png').unlink()
    with pytest.raises(InputError, match='1 of the 40 images .*linked/5.png'):
        image_paths(str(folder), linked, 'list.txt')


def test_names_of_windows(folder, asked):
    paths = image_paths(str(folder), [name.replace('/', '\\') for name in MANY], 'list.txt')
    assert paths == [str(folder / name) for name in MANY]


def test_a_large_folder_is_not_read_to_its_end(folder, asked, monkeypatch):
    """Somebody who wants 20 of a million pictures does not wait for the names of all."""
    monkeypatch.setattr(picture_files, 'MOST_UNWANTED', 1)
    names = MANY[: FEWEST_LISTED + 1]
    assert image_paths(str(folder), names, 'list.txt') == [str(folder / name) for name in names]
    monkeypatch.setattr(picture_files, 'MOST_UNWANTED', 0)
    assert len(image_paths(str(folder), names, 'list.txt')) == len(names)
    assert len(asked) >= len(names)

"""The checks of downloads on small folders in the layout of the originals."""

import hashlib
import importlib.util
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import mmlt.preparation.multi_label_checks  # noqa: F401  adds VOC-LT and COCO-LT
from mmlt.cli import check as tool
from mmlt.datasets import CIFAR10LT, CIFAR100LT, INaturalist2018, LongTailedDataset
from mmlt.preparation import checks
from mmlt.preparation.checks import DOWNLOADS, check_contents
from mmlt.visualization import class_size_report, plot_class_sizes

REPO = Path(__file__).parent.parent.parent
NAMES = ('tench', 'goldfish', 'great white shark')
COUNTS = (120, 20, 3)  # one class a shot
SMALL = dict(num_classes=3, shots=(1, 1, 1), largest=120, smallest=3)


@pytest.fixture(scope='module')
def pixels(tmp_path_factory) -> bytes:
    path = tmp_path_factory.mktemp('pixels') / 'a.jpg'
    Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(path)
    return path.read_bytes()


def write(root, files, pixels):
    for file in files:
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).write_bytes(pixels)


def make_lists(root, prefix, pattern, folders, pixels):
    splits = {'train': (folders, COUNTS), 'val': (folders, (2, 2, 2)), 'test': (folders, (1, 1, 1))}
    for split, (places, counts) in splits.items():
        lines = [(f'{prefix}{p}/{split}{i}.jpg', y) for y, (p, n) in enumerate(zip(places, counts)) for i in range(n)]
        (root / pattern.format(split)).write_text(''.join(f'{f} {y}\n' for f, y in lines))
        write(root, [f for f, _ in lines], pixels)


@pytest.fixture
def imagenet(tmp_path, pixels, monkeypatch):
    monkeypatch.setattr(checks.open_clip, 'IMAGENET_CLASSNAMES', list(NAMES))
    images = dict(train=143, val=6, test=3)
    small = replace(DOWNLOADS['imagenet-lt'], images=images, per_class=dict(val=2, test=1), **SMALL)
    monkeypatch.setitem(DOWNLOADS, 'imagenet-lt', small)
    make_lists(tmp_path, 'train/', 'ImageNet_LT_{}.txt', ('n01', 'n02', 'n03'), pixels)
    return tmp_path


@pytest.fixture
def places(tmp_path, pixels, monkeypatch):
    small = replace(
        DOWNLOADS['places-lt'],
        images=dict(train=143, val=6, test=3),
        per_class=dict(val=2, test=1),
        checksums={},
        **SMALL,
    )
    monkeypatch.setitem(DOWNLOADS, 'places-lt', small)
    folders = ('a/airfield', 'a/arch', 'b/barn/indoor')
    make_lists(tmp_path, 'data_256/', 'Places_LT_{}.txt', folders, pixels)
    (tmp_path / 'categories_places365.txt').write_text(''.join(f'/{f} {y}\n' for y, f in enumerate(folders)))
    return tmp_path


@pytest.fixture
def inat(tmp_path, pixels, monkeypatch):
    small = replace(DOWNLOADS['inat18'], images=dict(train=143, val=9), **SMALL)
    monkeypatch.setitem(DOWNLOADS, 'inat18', small)
    categories = [dict(id=c, name=str(c)) for c in range(3)]
    number = 0
    for split, counts in (('train', COUNTS), ('val', (3, 3, 3))):
        images, annotations = [], []
        for c, n in enumerate(counts):
            for _ in range(n):
                number += 1
                images.append(dict(id=number, file_name=f'train_val2018/Aves/{c}/{number}.jpg'))
                annotations.append(dict(id=number, image_id=number, category_id=c))
        table = dict(images=images, annotations=annotations, categories=categories)
        (tmp_path / f'{split}2018.json').write_text(json.dumps(table))
        write(tmp_path, [i['file_name'] for i in images], pixels)
    named = [dict(id=c, name=name) for c, name in enumerate(NAMES)]
    (tmp_path / 'categories.json').write_text(json.dumps(named))
    return tmp_path


def problems(name, root, **kwargs):
    return check_contents(DOWNLOADS[name], str(root), **kwargs).problems


@pytest.mark.parametrize('name, fixture', [('imagenet-lt', 'imagenet'), ('places-lt', 'places'), ('inat18', 'inat')])
def test_whole_download_passes(name, fixture, request, capsys, monkeypatch):
    root = request.getfixturevalue(fixture)
    monkeypatch.chdir(root)
    assert tool.main([name, '.', '--decode', '--out', 'lists', '--picture', 'sizes.png']) == 0
    said = capsys.readouterr().out
    assert f'{DOWNLOADS[name].title} is complete.' in said and 'FAULT' not in said
    row = next(line for line in said.splitlines() if '143' in line)
    assert [cell.strip() for cell in row.strip('│').split('│')] == ['3', '143', '120', '3', '40.0', '1', '1', '1']
    assert ('184.5 K' in said) == (name == 'places-lt')
    with Image.open('sizes.png') as image:
        assert image.format == 'PNG'
    dataset = LongTailedDataset('lists/train.txt', classes=str(root / 'lists/classes.txt'))
    assert dataset.metainfo['class_counts'] == list(COUNTS)
    if name == 'inat18':
        original = INaturalist2018('train2018.json', classes='categories.json', data_root='.')
        assert dataset.metainfo['classes'] == original.metainfo['classes'] == NAMES
        assert dataset.get_gt_labels().tolist() == original.get_gt_labels().tolist()


def test_missing_files_are_named(imagenet):
    (imagenet / 'ImageNet_LT_val.txt').unlink()
    (imagenet / 'train/n01/train7.jpg').unlink()
    for file in (imagenet / 'train/n03').iterdir():
        file.unlink()
    missing_list, train, test = problems('imagenet-lt', imagenet)
    assert missing_list == f"ImageNet-LT: the list 'ImageNet_LT_val.txt' is missing in '{imagenet}'."
    assert "4 of the 143 listed pictures are not in '" in train and "'train/n01/train7.jpg', 'train/n03/" in train
    assert '1 folders have none of theirs' in train
    assert test.startswith('ImageNet-LT, test: 1 of the 3')


def test_half_download_is_noticed(imagenet):
    (imagenet / 'train.tar.part').write_text('x')
    (imagenet / 'train/n01/train0.jpg').write_bytes(b'')
    picture = imagenet / 'train/n02/train5.jpg'
    picture.write_bytes(picture.read_bytes()[:200])
    assert len(problems('imagenet-lt', imagenet)) == 2
    partial, empty, broken = problems('imagenet-lt', imagenet, decode=True)
    assert partial.endswith("is only half downloaded: there are unfinished files, 'train.tar.part'.")
    assert "1 pictures are empty files, 'train/n01/train0.jpg'" in empty
    assert "1 pictures cannot be read, 'train/n02/train5.jpg'" in broken


def cut(root, split, lines):
    path = root / f'ImageNet_LT_{split}.txt'
    path.write_text(''.join(line + '\n' for line in path.read_text().splitlines()[:lines]))


def test_list_that_is_cut_off(imagenet):
    cut(imagenet, 'train', 100)
    (found,) = problems('imagenet-lt', imagenet)
    assert found == (
        'ImageNet-LT, train: 143 images are expected and 100 listed; 43 are missing: the list is probably cut off; '
        'download it again.'
    )
    with (imagenet / 'ImageNet_LT_train.txt').open('a') as f:
        f.write('train/n01/tra')
    (found,) = problems('imagenet-lt', imagenet)
    assert "line 101: 'train/n01/tra' is not of the form" in found


def test_exchanged_and_changed_lists(imagenet):
    val, test = (imagenet / f'ImageNet_LT_{s}.txt' for s in ('val', 'test'))
    text = val.read_text(), test.read_text()
    val.write_text(text[1])
    assert 'that is the number of test: two lists are exchanged' in problems('imagenet-lt', imagenet)[0]
    val.write_text(text[0].replace('n03/val0.jpg 2', 'n03/val0.jpg 1'))
    (found,) = problems('imagenet-lt', imagenet)
    assert 'val: every class has 2 images, but class 1 has 3 (2 classes differ)' in found


@pytest.mark.parametrize(
    'name, number, sentence',
    [
        ('imagenet-lt', 1281167, 'that is the whole ImageNet'),
        ('places-lt', 1803460, 'that is the whole Places365-Standard'),
        ('inat18', 579184, 'the release of 2017'),
        ('inat18', 500000, 'another version of the list'),
    ],
)
def test_other_numbers_are_explained(name, number, sentence):
    assert sentence in checks.explain_number(DOWNLOADS[name], 'train', number)


def edit(root, split, old, new):
    path = root / f'ImageNet_LT_{split}.txt'
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))


def test_labels_that_disagree_with_folders(imagenet):
    edit(imagenet, 'train', 'n02/train4.jpg 1', 'n02/train4.jpg 0')
    found = problems('imagenet-lt', imagenet)
    assert "'train/n02/train4.jpg' has label 0, but other pictures of its folder have label 1" in found[0]
    assert 'the number of images is right, but many / medium / few are 1 / 0 / 2 in place of 1 / 1 / 1' in found[1]
    edit(imagenet, 'train', 'n02/train4.jpg 0', 'n02/train4.jpg 7')
    assert "'train/n02/train4.jpg' has label 7, but labels are 0 to 2" in problems('imagenet-lt', imagenet)[0]


def test_labels_in_another_order_than_the_class_names(imagenet):
    for split in ('train', 'val', 'test'):
        path = imagenet / f'ImageNet_LT_{split}.txt'
        swapped = path.read_text().replace('/n01/', '/n/').replace('/n02/', '/n01/').replace('/n/', '/n02/')
        path.write_text(swapped)
    found = problems('imagenet-lt', imagenet)
    assert any("not in the order of the class folders' names" in p for p in found)


def test_places_classes_must_fit_the_list(places):
    path = places / 'categories_places365.txt'
    path.write_text('/a/arch 0\n/a/airfield 1\n/b/barn/indoor 2\n')
    (found,) = problems('places-lt', places)
    assert 'has label 0 in the list, but categories_places365.txt says 1' in found
    path.write_text('/a/arch 0\n')
    assert 'Places-LT has 3 classes, but here are 1 names.' in problems('places-lt', places)
    path.write_text('/a/airfield x\n/a/arch 1\n')
    assert "line 1: '/a/airfield x' is not of the form '/a/airfield 0'" in problems('places-lt', places)[0]
    path.unlink()
    assert "categories_places365.txt' does not exist" in problems('places-lt', places)[0]


def test_checksums_are_compared_where_the_files_lie(places, monkeypatch):
    categories = (places / 'categories_places365.txt').read_bytes()
    sums = {
        'categories_places365.txt': hashlib.md5(categories).hexdigest(),
        'images.tar': hashlib.md5(b'x').hexdigest(),
    }
    monkeypatch.setitem(DOWNLOADS, 'places-lt', replace(DOWNLOADS['places-lt'], checksums=sums))
    assert problems('places-lt', places) == []
    (places / 'images.tar').write_bytes(b'x')
    assert problems('places-lt', places) == []
    (places / 'images.tar').write_bytes(b'')
    (places / 'categories_places365.txt').write_bytes(categories + b'\n')
    (found,) = problems('places-lt', places)
    assert "Places-LT: 2 files in '" in found and "published ones, 'categories_places365.txt', 'images.tar': " in found


def test_published_checksums():
    places365, voc = (importlib.import_module(f'torchvision.datasets.{name}') for name in ('places365', 'voc'))
    inat = importlib.import_module('torchvision.datasets.inaturalist')
    assert dict([places365.Places365._CATEGORIES_META]) == DOWNLOADS['places-lt'].checksums
    years = [voc.DATASET_YEAR_DICT[year] for year in ('2012', '2007', '2007-test')]
    assert {year['filename']: year['md5'] for year in years} == DOWNLOADS['voc-lt'].checksums
    assert DOWNLOADS['inat18'].checksums['train_val2018.tar.gz'] == inat.DATASET_MD5['2018']
    assert all(len(bytes.fromhex(md5)) == 16 for md5 in DOWNLOADS['inat18'].checksums.values())


def test_links_to_nothing_are_missing(imagenet):
    for name in ('train/n01/train7.jpg', 'train/n03/train0.jpg'):
        (imagenet / name).unlink()
        (imagenet / name).symlink_to(imagenet / 'nowhere.jpg')
    (found,) = problems('imagenet-lt', imagenet)
    assert '2 of the 143 listed pictures are not in' in found and "'train/n01/train7.jpg'" in found


def test_pictures_that_are_listed_twice(imagenet):
    edit(imagenet, 'train', 'n01/train7.jpg', 'n01/train8.jpg')
    edit(imagenet, 'val', 'n02/val1.jpg', './n02/train3.jpg')
    twice, both = problems('imagenet-lt', imagenet)
    assert 'train: 1 pictures are listed more than once' in twice and "train/n01/train8.jpg'" in twice
    assert '1 pictures are in train and in val' in both and "train/n02/train3.jpg'" in both


@pytest.mark.parametrize(
    'data, sentence',
    [
        ('train/n01/Größe.jpg 0\n'.encode('latin-1'), "train.txt' is not UTF-8"),
        (b'train/n01/a.jpg 12345678901234567890\n', 'line 1: the label 12345678901234567890 is too large'),
    ],
)
def test_lists_that_cannot_be_read(imagenet, data, sentence):
    (imagenet / 'ImageNet_LT_train.txt').write_bytes(data)
    (found,) = problems('imagenet-lt', imagenet)
    assert sentence in found


def test_inat_without_names_or_with_a_broken_file(inat):
    (inat / 'categories.json').unlink()
    (found,) = problems('inat18', inat)
    assert "'categories.json' with the species' names is missing" in found
    text = (inat / 'val2018.json').read_text()
    (inat / 'val2018.json').write_text(text[: len(text) // 2])
    assert "val2018.json' is not valid JSON" in problems('inat18', inat)[1]
    (inat / 'categories.json').write_text('[{"id": 0, "name": "a"}, {"id": "1", "name": "b"}]')
    assert "categories.json', categories, entry 2: the id '1' is no number" in problems('inat18', inat)[0]
    (inat / 'categories.json').write_text('[{"id": 0')
    assert "categories.json' is not valid JSON" in problems('inat18', inat)[0]
    (inat / 'train2018.json').unlink()
    assert any("train2018.json' does not exist" in p for p in problems('inat18', inat))


@pytest.mark.parametrize(
    'name, dataset, images, shots',
    [('cifar10-lt', CIFAR10LT, '12,406', None), ('cifar100-lt', CIFAR100LT, '10,847', ['35', '35', '30'])],
)
def test_cifar(tmp_path, monkeypatch, capsys, name, dataset, images, shots):
    monkeypatch.chdir(tmp_path)
    (said,) = problems(name, tmp_path)
    assert 'files are missing in' in said and dataset.url in said
    folder = tmp_path / dataset.base_folder
    folder.mkdir()
    for key in ('train_list', 'test_list'):
        listed = [[n, hashlib.md5(n.encode()).hexdigest()] for n, _ in getattr(dataset, key)]
        monkeypatch.setattr(dataset, key, listed)
        for n, _ in listed:
            (folder / n).write_bytes(n.encode())
    meta = dataset.meta['filename']
    (folder / meta).write_bytes(b'meta')
    monkeypatch.setattr(dataset, 'meta', {**dataset.meta, 'md5': hashlib.md5(b'meta').hexdigest()})
    assert tool.main([name, '.']) == 0
    said = capsys.readouterr().out
    cells = next(line for line in said.splitlines() if images in line).strip('│').split('│')
    assert shots is None or [c.strip() for c in cells[-3:]] == shots
    with pytest.raises(SystemExit, match='has no list of pictures: leave out --out'):
        tool.main([name, '.', '--out', 'lists'])
    (folder / dataset.test_list[0][0]).write_bytes(b'half')
    (said,) = problems(name, tmp_path)
    assert f"another MD5 sum than the published ones, '{dataset.test_list[0][0]}'" in said
    (folder / meta).unlink()
    (tmp_path / dataset.filename).write_bytes(b'x')
    assert f"unpack '{tmp_path / dataset.filename}'" in problems(name, tmp_path)[0]


def test_faults_give_the_exit_code_and_no_annotation(imagenet, capsys, monkeypatch):
    monkeypatch.chdir(imagenet)
    cut(imagenet, 'train', 100)
    assert tool.main(['imagenet-lt', '.']) == 1
    assert 'FAULT: ImageNet-LT, train: 143 images are expected' in capsys.readouterr().out
    with pytest.raises(SystemExit, match='No annotation is written'):
        tool.main(['imagenet-lt', '.', '--out', 'lists'])
    with pytest.raises(SystemExit, match="folder 'nowhere' does not exist: give the one that holds ImageNet-LT"):
        tool.main(['imagenet-lt', 'nowhere'])


def test_published_statistics_agree_with_themselves():
    for download in DOWNLOADS.values():
        assert download.shots is None or sum(download.shots) == download.num_classes
        for split, number in download.per_class.items():
            assert download.images[split] == number * download.num_classes


def test_class_sizes_with_an_empty_class_and_many(tmp_path):
    report = class_size_report([200, 0, 5])
    assert report['ratio'] == float('inf')
    assert report['classes_per_shot'] == dict(many=1, medium=0, few=2)
    assert [c['class'] for c in report['per_class']] == ['0', '1', '2']
    for name, r in (('a.png', report), ('b.png', class_size_report(range(1, 301)))):
        plot_class_sizes(r, tmp_path / name, '50 % of $x')
        with Image.open(tmp_path / name) as image:
            assert len(np.unique(np.asarray(image.convert('RGB')).reshape(-1, 3), axis=0)) > 10

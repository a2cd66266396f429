"""Lists of files: counts, class names, and a sentence for everything that can be wrong with them."""

import copy
import logging
import pickle

import numpy as np
import open_clip
import pytest
from mmengine.dataset import Compose
from mmengine.fileio import BaseStorageBackend, register_backend
from mmengine.fileio.backends.registry_utils import backends, prefix_to_backends
from mmengine.logging import MMLogger
from PIL import Image

from mmlt import InputError
from mmlt.datasets import LongTailedDataset
from mmlt.registry import DATASETS

LOAD = [dict(type='LoadImageFromFile')]


def make(root, ann_file='train.txt', **kwargs) -> LongTailedDataset:
    kwargs = {'data_root': str(root), 'data_prefix': 'images', 'serialize_data': False, **kwargs}
    return LongTailedDataset(ann_file, **kwargs)


def truncate(path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.fixture
def warnings_logged():
    """Messages that go to the current logger."""
    messages = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: messages.append(record.getMessage())
    logger = MMLogger.get_current_instance()
    logger.addHandler(handler)
    yield messages
    logger.removeHandler(handler)


# What is read


def test_train_split(picture_folder):
    dataset = make(picture_folder, classes='classes.txt')
    assert dataset.metainfo['classes'] == ('apple', 'pear', 'plum')
    assert dataset.metainfo['class_counts'] == [6, 3, 1]
    assert dataset.get_gt_labels().tolist() == [0] * 6 + [1] * 3 + [2]
    files = [dataset.get_data_info(i)['img_path'] for i in range(len(dataset))]
    assert files[0] == str(picture_folder / 'images/apple/0.png')
    assert files[-1] == str(picture_folder / 'images/plum/0.png')


def test_test_split_has_the_train_counts(picture_folder):
    dataset = make(picture_folder, 'test.txt', train_ann_file='train.txt', classes='classes.txt')
    assert dataset.get_gt_labels().tolist() == [0, 0, 1, 1, 2, 2]
    assert dataset.metainfo['class_counts'] == [6, 3, 1]
    absolute = make(picture_folder, 'test.txt', train_ann_file=str(picture_folder / 'train.txt'))
    assert absolute.metainfo['class_counts'] == [6, 3, 1]
    # Without a train list, this list is the train list.
    assert make(picture_folder, 'test.txt').metainfo['class_counts'] == [2, 2, 2]


def test_test_split_may_lack_classes(picture_folder):
    (picture_folder / 'test.txt').write_text('pear/3.png 1\n')
    dataset = make(picture_folder, 'test.txt', train_ann_file='train.txt')
    assert dataset.metainfo['class_counts'] == [6, 3, 1]
    assert dataset.metainfo['classes'] == ('0', '1', '2')
    assert dataset.get_gt_labels().tolist() == [1]


def test_registered_with_scope(picture_folder):
    cfg = dict(type='mmlt.LongTailedDataset', ann_file='train.txt', data_root=str(picture_folder), data_prefix='images')
    dataset = DATASETS.build(cfg)
    assert type(dataset) is LongTailedDataset
    assert dataset.metainfo['class_counts'] == [6, 3, 1]


def test_pixels_and_labels_belong_together(picture_folder):
    dataset = make(picture_folder, 'test.txt', train_ann_file='train.txt', pipeline=LOAD)
    for i in range(len(dataset)):
        sample = dataset[i]
        # The fixture makes class c bright in channel c of RGB; mmcv loads BGR.
        assert sample['img'].shape == (40, 36, 3)
        assert 2 - int(sample['img'].mean((0, 1)).argmax()) == sample['gt_label']


def test_lines_may_have_spaces_tabs_and_be_blank(picture_folder):
    (picture_folder / 'images/apple/0.png').rename(picture_folder / 'images/apple/my best apple.png')
    (picture_folder / 'train.txt').write_text('\napple/my best apple.png 0\r\n\n  pear/0.png\t1  \nplum/0.png   2')
    dataset = make(picture_folder)
    assert dataset.get_gt_labels().tolist() == [0, 1, 2]
    assert dataset.get_data_info(0)['img_path'].endswith('images/apple/my best apple.png')


def test_paths_without_root_or_prefix(picture_folder):
    lines = [f'{picture_folder}/images/apple/0.png 0', f'{picture_folder}/images/pear/0.png 1']
    (picture_folder / 'absolute.txt').write_text('\n'.join(lines))
    dataset = LongTailedDataset(str(picture_folder / 'absolute.txt'))
    assert dataset.get_data_info(1)['img_path'] == f'{picture_folder}/images/pear/0.png'
    assert dataset.metainfo['class_counts'] == [1, 1]


@pytest.fixture
def remote(picture_folder):
    """A storage of its own that serves the picture folder as ``shelf://``."""

    class Shelf(BaseStorageBackend):
        def get(self, filepath):
            return (picture_folder / filepath.removeprefix('shelf://')).read_bytes()

        get_text = get

        def join_path(self, filepath, *filepaths):
            return '/'.join([filepath, *filepaths])

    register_backend('Shelf', Shelf, prefixes='shelf')
    yield
    del backends['Shelf'], prefix_to_backends['shelf']


@pytest.mark.usefixtures('remote')
def test_remote_pictures_are_looked_at_only_when_they_are_loaded(picture_folder):
    (picture_folder / 'images/apple/1.png').unlink()
    truncate(picture_folder / 'images/apple/2.png')
    dataset = make('', str(picture_folder / 'train.txt'), data_prefix='shelf://images', pipeline=LOAD)
    assert dataset.get_data_info(0)['img_path'] == 'shelf://images/apple/0.png'
    assert dataset[0]['img'].shape == (40, 36, 3)
    for i in (1, 2):
        with pytest.raises(InputError, match=f"picture 'shelf://images/apple/{i}.png' cannot be read"):
            dataset[i]


# Class names


def test_class_names_default_to_numbers(picture_folder):
    assert make(picture_folder).metainfo['classes'] == ('0', '1', '2')


@pytest.mark.parametrize('classes', [['a', 'b', 'c'], ('a', 'b', 'c')])
def test_class_names_as_sequence(picture_folder, classes):
    assert make(picture_folder, classes=classes).metainfo['classes'] == ('a', 'b', 'c')
    named = make(picture_folder, metainfo=dict(classes=classes))
    assert list(named.metainfo['classes']) == ['a', 'b', 'c']


def test_class_names_of_places365(picture_folder):
    places = picture_folder / 'places.txt'
    places.write_text('/a/airplane_cabin 0\n/a/apartment_building/outdoor 8\n\n/z/zen_garden 364\n')
    expected = ('airplane cabin', 'apartment building outdoor', 'zen garden')
    assert make(picture_folder, classes='places.txt').metainfo['classes'] == expected
    assert make(picture_folder, classes=str(places)).metainfo['classes'] == expected


def test_plain_class_names_stay_as_they_are(picture_folder):
    (picture_folder / 'classes.txt').write_text('great white shark\n  crane 2 \nA/B test_1 3\n')
    assert make(picture_folder, classes='classes.txt').CLASSES == ('great white shark', 'crane 2', 'A/B test_1 3')


def test_class_names_of_imagenet(picture_folder):
    lines = [f'apple/0.png {c}' for c in range(1000)]
    (picture_folder / 'train.txt').write_text('\n'.join(lines))
    dataset = make(picture_folder, classes='imagenet')
    assert dataset.metainfo['classes'] == tuple(open_clip.IMAGENET_CLASSNAMES)
    assert dataset.metainfo['classes'][:2] == ('tench', 'goldfish')
    assert dataset.metainfo['class_counts'] == [1] * 1000


# What is refused


def test_missing_annotation_file(picture_folder):
    with pytest.raises(InputError, match=f"annotation file '{picture_folder}/nope.txt' does not exist.*ann_file"):
        make(picture_folder, 'nope.txt')
    with pytest.raises(InputError, match=f"annotation file '{picture_folder}/gone.txt' does not exist"):
        make(picture_folder, 'test.txt', train_ann_file='gone.txt')


def test_missing_class_list(picture_folder):
    with pytest.raises(InputError, match=f"class list '{picture_folder}/names.txt' does not exist"):
        make(picture_folder, classes='names.txt')


def test_missing_image_root(picture_folder):
    with pytest.raises(InputError, match=f"image folder '{picture_folder}/pictures' does not exist.*data_prefix"):
        make(picture_folder, data_prefix='pictures')


def test_missing_pictures_are_counted_and_named(picture_folder):
    for name in ('apple/4.png', 'pear/1.png'):
        (picture_folder / 'images' / name).unlink()
    with pytest.raises(InputError, match='^2 of the 10 images') as error:
        make(picture_folder)
    assert f"'{picture_folder}/train.txt'" in str(error.value)
    assert f"the first is '{picture_folder}/images/apple/4.png'" in str(error.value)


@pytest.mark.parametrize('line', ['apple/1.png', 'apple/1.png zero', 'apple/1.png 1.0', 'apple/1.png,0', '0'])
def test_malformed_line_is_named(picture_folder, line):
    (picture_folder / 'train.txt').write_text(f'apple/0.png 0\n\n{line}\npear/0.png 1\n')
    with pytest.raises(InputError) as error:
        make(picture_folder)
    assert (
        str(error.value) == f"'{picture_folder}/train.txt', line 3: '{line}' is not of the form 'relative/path label'."
    )


@pytest.mark.parametrize(
    ('labels', 'match'),
    [
        ((0, 1, 3), r"train.txt', entry 3: label 3 is outside \[0, 3\)\. The class list has 3 names.*go up to 3"),
        ((0, -1, 2), r"train.txt', entry 2: label -1 is outside \[0, 3\)\.$"),
        ((1, 2, 3), r"train.txt', entry 3: label 3 is outside \[0, 3\)\. The labels seem to start at 1"),
    ],
)
def test_label_outside_the_class_list(picture_folder, labels, match):
    names = ('apple/0.png', 'pear/0.png', 'plum/0.png')
    (picture_folder / 'train.txt').write_text(''.join(f'{n} {y}\n' for n, y in zip(names, labels)))
    with pytest.raises(InputError, match=match):
        make(picture_folder, classes='classes.txt')


def test_labels_from_1_without_class_list(picture_folder):
    (picture_folder / 'train.txt').write_text('apple/0.png 1\npear/0.png 2\n')
    with pytest.raises(InputError, match="train.txt' has no training image of class 0"):
        make(picture_folder)


def test_test_label_outside_the_class_list(picture_folder):
    (picture_folder / 'test.txt').write_text('apple/0.png 0\npear/0.png 3\n')
    for classes in (None, 'classes.txt'):
        with pytest.raises(InputError, match=r"test.txt', entry 2: label 3 is outside \[0, 3\)"):
            make(picture_folder, 'test.txt', train_ann_file='train.txt', classes=classes)


def test_class_list_shorter_than_labels(picture_folder):
    match = r"train.txt', entry 10: label 2 is outside \[0, 2\)\. The class list has 2 names, the labels go up to 2"
    with pytest.raises(InputError, match=match):
        make(picture_folder, classes=['apple', 'pear'])


def test_class_without_train_image(picture_folder):
    with pytest.raises(InputError, match=r"train.txt' has no training image of class 3 \('cherry'\)"):
        make(picture_folder, classes=['apple', 'pear', 'plum', 'cherry'])
    (picture_folder / 'train.txt').write_text('apple/0.png 0\nplum/0.png 2\n')
    match = rf"'{picture_folder}/train.txt' has no training image of class 1 \('pear'\)"
    with pytest.raises(InputError, match=match):
        make(picture_folder, 'test.txt', train_ann_file='train.txt', classes='classes.txt')


@pytest.mark.parametrize('classes', [None, 'classes.txt'])
@pytest.mark.parametrize('empty', ['train.txt', 'test.txt'])
def test_empty_list_is_named(picture_folder, classes, empty):
    (picture_folder / empty).write_text('\n')
    with pytest.raises(InputError, match=f"{empty}' lists no images"):
        make(picture_folder, 'test.txt', train_ann_file='train.txt', classes=classes)


# Unreadable pictures


def spoil(folder) -> tuple[str, str]:
    """Truncate one picture and replace another by text; both are in train.txt, with labels 0 and 1."""
    truncate(folder / 'images/apple/2.png')
    (folder / 'images/pear/1.png').write_text('<html>404 Not Found</html>')
    return str(folder / 'images/apple/2.png'), str(folder / 'images/pear/1.png')


@pytest.mark.parametrize('backend', ['cv2', 'pillow'])
@pytest.mark.parametrize('test_mode', [False, True])
def test_unreadable_picture_is_named_when_it_is_loaded(picture_folder, backend, test_mode):
    truncated, text = spoil(picture_folder)
    pipeline = [dict(type='LoadImageFromFile', imdecode_backend=backend)]
    dataset = make(picture_folder, pipeline=pipeline, test_mode=test_mode)
    assert dataset[0]['img'].shape == (40, 36, 3)
    for index, path in ((2, truncated), (7, text)):
        with pytest.raises(InputError, match='skip_unreadable=True') as error:
            dataset[index]
        assert f"The picture '{path}' cannot be read" in str(error.value)


def test_empty_file_is_named(picture_folder):
    (picture_folder / 'images/apple/0.png').write_bytes(b'')
    with pytest.raises(InputError, match="picture '.*/apple/0.png' cannot be read"):
        make(picture_folder, pipeline=LOAD)[0]


def test_picture_that_vanishes_is_named(picture_folder):
    dataset = make(picture_folder, pipeline=LOAD)
    (picture_folder / 'images/apple/0.png').unlink()
    with pytest.raises(InputError, match="picture '.*/apple/0.png' cannot be read .FileNotFoundError"):
        dataset[0]


def test_errors_of_the_pipeline_are_not_blamed_on_the_picture(picture_folder):
    dataset = make(picture_folder, pipeline=LOAD)

    def broken(results):
        raise KeyError('a bug in a transform')

    dataset.pipeline = Compose([*dataset.pipeline.transforms, broken])
    with pytest.raises(KeyError, match='a bug in a transform'):
        dataset[0]


def test_skip_unreadable_drops_counts_and_tells(picture_folder, warnings_logged):
    truncated, text = spoil(picture_folder)
    dataset = make(picture_folder, classes='classes.txt', skip_unreadable=True, pipeline=LOAD)
    assert dataset.metainfo['class_counts'] == [5, 2, 1]
    assert dataset.get_gt_labels().tolist() == [0] * 5 + [1] * 2 + [2]
    files = [dataset.get_data_info(i)['img_path'] for i in range(len(dataset))]
    assert truncated not in files and text not in files
    assert all(dataset[i]['img'].shape == (40, 36, 3) for i in range(len(dataset)))
    (message,) = warnings_logged
    assert f"2 of the 10 pictures of '{picture_folder}/train.txt' cannot be read and are left out" in message
    assert f'{truncated}: OSError' in message
    assert f'{text}: UnidentifiedImageError' in message


def test_skip_unreadable_is_silent_on_good_pictures(picture_folder, warnings_logged):
    dataset = make(picture_folder, skip_unreadable=True)
    assert dataset.metainfo['class_counts'] == [6, 3, 1]
    assert warnings_logged == []


def test_skip_unreadable_on_the_test_split_keeps_the_train_counts(picture_folder, warnings_logged):
    truncate(picture_folder / 'images/apple/6.png')
    dataset = make(picture_folder, 'test.txt', train_ann_file='train.txt', skip_unreadable=True)
    assert dataset.get_gt_labels().tolist() == [0, 1, 1, 2, 2]
    assert dataset.metainfo['class_counts'] == [6, 3, 1]
    assert '1 of the 6 pictures' in warnings_logged[0]


def test_skip_unreadable_with_the_train_list_named_twice(picture_folder):
    spoil(picture_folder)
    dataset = make(picture_folder, train_ann_file='train.txt', skip_unreadable=True)
    assert len(dataset) == 8
    assert dataset.metainfo['class_counts'] == [5, 2, 1]


def test_skip_unreadable_that_empties_a_class(picture_folder):
    truncate(picture_folder / 'images/plum/0.png')
    with pytest.raises(InputError, match=r"train.txt' has no training image of class 2 \('plum'\)"):
        make(picture_folder, classes='classes.txt', skip_unreadable=True)


def test_grey_and_palette_pictures_are_readable(picture_folder, warnings_logged):
    pixels = np.arange(100, dtype=np.uint8).reshape(10, 10)
    Image.fromarray(pixels).save(picture_folder / 'images/apple/0.png')
    Image.fromarray(pixels).convert('P').save(picture_folder / 'images/apple/1.png')
    dataset = make(picture_folder, skip_unreadable=True, pipeline=LOAD)
    assert len(dataset) == 10 and warnings_logged == []
    assert dataset[0]['img'].shape == dataset[1]['img'].shape == (10, 10, 3)


def test_lazy_init_reads_nothing_yet(picture_folder):
    dataset = make(picture_folder, 'nope.txt', lazy_init=True, classes='classes.txt')
    assert dataset.metainfo['classes'] == ('apple', 'pear', 'plum')
    with pytest.raises(InputError, match='nope.txt'):
        dataset.full_init()


# Labels


@pytest.mark.parametrize('serialize', [True, False])
def test_labels_are_those_of_the_list_as_it_is(picture_folder, monkeypatch, serialize):
    """They are read once; subsets, copies and what somebody writes into the answer change nothing for others."""
    dataset = make(picture_folder, serialize_data=serialize)
    expected = [0] * 6 + [1] * 3 + [2]
    assert dataset.get_gt_labels().tolist() == expected
    dataset.get_gt_labels()[:] = 9
    assert dataset.get_gt_labels().tolist() == expected
    some = dataset.get_subset([9, 0, 7])
    assert some.get_gt_labels().tolist() == [2, 0, 1]
    twin = pickle.loads(pickle.dumps(copy.deepcopy(dataset)))
    twin.get_subset_([8, 9])
    assert twin.get_gt_labels().tolist() == [1, 2] and dataset.get_gt_labels().tolist() == expected
    dataset.get_subset_(4)
    assert dataset.get_gt_labels().tolist() == [0] * 4
    reads = []
    inner = dataset.get_data_info
    monkeypatch.setattr(dataset, 'get_data_info', lambda i: reads.append(i) or inner(i))
    dataset.get_gt_labels()
    assert len(reads) == (0 if serialize else 4)


def test_labels_of_a_dataset_that_is_read_when_it_is_asked(picture_folder):
    lazy = make(picture_folder, serialize_data=True, lazy_init=True, classes='classes.txt')
    assert lazy.get_gt_labels().tolist() == [0] * 6 + [1] * 3 + [2]


# Class texts


def test_class_texts_are_told_where_they_are(picture_folder):
    assert 'class_texts' not in make(picture_folder).metainfo
    (picture_folder / 'wiki').mkdir()
    for split in (dict(), dict(ann_file='test.txt', train_ann_file='train.txt')):
        dataset = make(picture_folder, class_texts='wiki', **split)
        assert dataset.metainfo['class_texts'] == str(picture_folder / 'wiki')
    absolute = str(picture_folder / 'wiki')
    assert make(picture_folder, class_texts=absolute).metainfo['class_texts'] == absolute
    # A name, or a path from where the run is started; what does not exist is the reader's to tell.
    assert make(picture_folder, class_texts='mnist-lt').metainfo['class_texts'] == 'mnist-lt'

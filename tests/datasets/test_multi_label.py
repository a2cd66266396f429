"""VOC-LT, COCO-LT, lists and tables: files in the published layout, read right or refused with a sentence."""

import json
import logging
import pickle

import numpy as np
import pytest
from mmpretrain.datasets.categories import VOC2007_CATEGORIES
from PIL import Image

from mmlt import InputError
from mmlt.datasets import ClassAwareSampler, ClassBalancedSampler, LongTailedMultiLabel, dataset_positives
from mmlt.datasets.multi_label_files import (
    parse_coco,
    parse_label_list,
    parse_voc,
    read_class_freq,
    read_class_split,
    read_image_ids,
    read_label_scores,
)
from mmlt.registry import DATASETS

TRAIN = {'2008_000023': [14, 1], '2008_000028': [14], '2010_002361': [14, 8, 1]}
TEST = {'000001': [8], '000002': []}
PIPELINE = [dict(type='LoadImageFromFile'), dict(type='PackInputs')]


def picture(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((6, 8, 3), 90, np.uint8)).save(path)


def dump(content, path):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pickle.dumps(content, protocol=2))  # as mmcv.dump of the time


def statistics(folder, labels, num_classes, counts=None):
    """class_freq.pkl and class_split.pkl as the authors' scripts write them."""
    hot = np.zeros((len(labels), num_classes), np.int64)
    for row, own in zip(hot, labels):
        row[own] = 1
    freq = hot.sum(0) if counts is None else np.asarray(counts)
    total = len(labels) if counts is None else 2 * int(freq.max())
    content = {
        'gt_labels': list(hot),
        'class_freq': freq,
        'neg_class_freq': total - freq,
        'condition_prob': hot.T @ hot,
    }
    dump(content, folder / 'class_freq.pkl')
    split = {
        'head': set(np.where(freq >= 100)[0]),
        'middle': set(np.where((freq < 100) * (freq >= 20))[0]),
        'tail': set(np.where(freq < 20)[0]),
    }
    dump(split, folder / 'class_split.pkl')


@pytest.fixture
def voc(tmp_path):
    """VOC2012 with three training images, VOC2007 with two to test, longtail2012 beside them."""
    for year, images in (('VOC2012', TRAIN), ('VOC2007', TEST)):
        (tmp_path / year / 'Annotations').mkdir(parents=True)
        for image, labels in images.items():
            picture(tmp_path / year / 'JPEGImages' / f'{image}.jpg')
            objects = ''.join(
                f'<object><name>{VOC2007_CATEGORIES[c]}</name><difficult>{int(c == 8)}</difficult>'
                '<part><name>head</name></part></object>' * 2
                for c in labels
            )
            (tmp_path / year / 'Annotations' / f'{image}.xml').write_text(f'<annotation>{objects}</annotation>')
    (tmp_path / 'longtail2012').mkdir()
    (tmp_path / 'longtail2012' / 'img_id.txt').write_text('\n'.join(TRAIN) + '\n')
    (tmp_path / 'test.txt').write_text('\n'.join(TEST) + '\n')
    statistics(tmp_path / 'longtail2012', list(TRAIN.values()), 20)
    return tmp_path


# The three classes that this sample has; with the others the train split would lack 17.
CLASSES = ('person', 'bicycle', 'chair')
VOC_TRAIN = dict(
    ann_file='VOC2012/Annotations', img_ids='longtail2012/img_id.txt', data_prefix='VOC2012/JPEGImages', classes=CLASSES
)
VOC_TEST = dict(
    ann_file='VOC2007/Annotations',
    img_ids='test.txt',
    train_ann_file='VOC2012/Annotations',
    train_img_ids='longtail2012/img_id.txt',
    data_prefix='VOC2007/JPEGImages',
    classes=CLASSES,
)


def test_voc(voc):
    train = DATASETS.build(dict(type='mmlt.LongTailedMultiLabel', data_root=str(voc), pipeline=PIPELINE, **VOC_TRAIN))
    assert [train.get_cat_ids(i) for i in range(3)] == [[0, 1], [0], [0, 1, 2]]  # the difficult chair counts
    assert train.metainfo['classes'] == CLASSES
    assert train.metainfo['class_counts'] == [3, 2, 1] and train.metainfo['num_train_images'] == 3
    assert train.get_data_info(2)['img_path'] == str(voc / 'VOC2012/JPEGImages/2010_002361.jpg')
    sample = train[2]
    assert sample['inputs'].shape == (3, 6, 8) and sample['data_samples'].gt_label.tolist() == [0, 1, 2]
    assert 'longtail2012/img_id.txt' in repr(train)


def test_test_split_knows_the_training_counts_and_may_have_images_without_labels(voc):
    test = LongTailedMultiLabel(data_root=str(voc), pipeline=PIPELINE, **VOC_TEST)
    assert test.metainfo['class_counts'] == [3, 2, 1] and test.metainfo['num_train_images'] == 3
    assert [test.get_cat_ids(i) for i in range(2)] == [[2], []]
    assert test[1]['data_samples'].gt_label.tolist() == []


def test_all_20_classes_of_voc_are_the_default(voc):
    files, labels, names = parse_voc(str(voc / 'VOC2012/Annotations'), list(TRAIN))
    assert names == VOC2007_CATEGORIES and files[0] == '2008_000023.jpg'
    assert [own.tolist() for own in labels] == [sorted(own) for own in TRAIN.values()]


def published(voc, counts):
    statistics(voc / 'longtail2012', [], 3, counts)
    stats = dict(class_freq='longtail2012/class_freq.pkl', class_split='longtail2012/class_split.pkl')
    return LongTailedMultiLabel(
        data_root=str(voc), **{**VOC_TEST, 'train_ann_file': None, 'train_img_ids': None}, **stats
    )


def test_published_counts(voc):
    data = published(voc, [120, 30, 4])
    assert data.metainfo['class_counts'] == [120, 30, 4] and data.metainfo['num_train_images'] == 240


@pytest.fixture
def warnings():
    """What the current logger is told at level WARNING."""
    from mmengine.logging import MMLogger

    told, handler = [], logging.Handler(logging.WARNING)
    handler.emit = lambda record: told.append(record.getMessage())
    logger = MMLogger.get_current_instance()
    logger.addHandler(handler)
    yield told
    logger.removeHandler(handler)


def test_published_statistics_that_fit_pass_without_a_word(voc, warnings):
    statistics(voc / 'longtail2012', [[0, 1], [0], [0, 1, 2]], 3)
    stats = dict(class_freq='longtail2012/class_freq.pkl', class_split='longtail2012/class_split.pkl')
    data = LongTailedMultiLabel(data_root=str(voc), **VOC_TRAIN, **stats)
    assert data.metainfo['class_counts'] == [3, 2, 1] and data.metainfo['num_train_images'] == 3
    assert warnings == []


def test_published_statistics_that_do_not_fit_are_warned_about(voc, warnings):
    statistics(voc / 'longtail2012', [[0, 1], [0], [1, 2]], 3)
    dump({'head': {0}, 'middle': set(), 'tail': {1, 2}}, voc / 'longtail2012/class_split.pkl')
    stats = dict(class_freq='longtail2012/class_freq.pkl', class_split='longtail2012/class_split.pkl')
    LongTailedMultiLabel(data_root=str(voc), **VOC_TRAIN, **stats)
    assert len(warnings) == 2
    assert 'in 1 of 3 classes: person 2, not 3.' in warnings[0]
    assert 'person in head with 2 images' in warnings[1]


@pytest.fixture
def coco(tmp_path):
    """COCO with crowd, empty, and tiny objects; category ids with gaps, in no order."""
    picture(tmp_path / 'train2017' / '000000554625.jpg')
    picture(tmp_path / 'train2017' / '000000118113.jpg')

    def thing(image, category, **more):
        return {'image_id': image, 'category_id': category, 'area': 30.0, 'bbox': [0, 0, 5, 6], 'iscrowd': 0, **more}

    content = {
        'images': [
            {'id': 554625, 'file_name': '000000554625.jpg'},
            {'id': 118113, 'file_name': '000000118113.jpg'},
            {'id': 7, 'file_name': 'not-selected.jpg'},
        ],
        'categories': [{'id': 90, 'name': 'toothbrush'}, {'id': 1, 'name': 'person'}, {'id': 13, 'name': 'stop sign'}],
        'annotations': [
            thing(554625, 90),
            thing(554625, 90),
            thing(554625, 1, iscrowd=1),
            thing(118113, 13),
            thing(118113, 1, area=0),
            thing(118113, 90, bbox=[0, 0, 0.5, 9]),
            thing(118113, 90, ignore=1),
            thing(7, 1),
        ],
    }
    (tmp_path / 'annotations').mkdir()
    (tmp_path / 'annotations' / 'instances.json').write_text(json.dumps(content))
    (tmp_path / 'img_id.pkl').write_text('554625\n118113\n')
    return tmp_path


def test_coco(coco):
    data = LongTailedMultiLabel(
        'annotations/instances.json', img_ids='img_id.pkl', data_root=str(coco), data_prefix='train2017'
    )
    assert data.metainfo['classes'] == ('person', 'stop sign', 'toothbrush')
    assert [data.get_cat_ids(i) for i in range(2)] == [[0, 2], [1]]
    assert data.metainfo['class_counts'] == [1, 1, 1] and data.metainfo['num_train_images'] == 2
    assert data.get_data_info(1)['img_path'].endswith('train2017/000000118113.jpg')


def test_coco_all_images_and_chosen_classes(coco):
    files, labels, names = parse_coco(str(coco / 'annotations/instances.json'), None, ['stop sign', 'person'])
    assert files[2] == 'not-selected.jpg' and names == ('stop sign', 'person')
    assert [own.tolist() for own in labels] == [[1], [0], [1]]


LIST = 'desert 1.jpg 0 2\nsub/b.jpg 1\n\nc.jpg\nd.jpg 2 1 0\n'
TABLE = '\ufeffimage,desert,sea,trees\ndesert 1.jpg,1,0,1\nsub/b.jpg,0,1,0\nc.jpg,0,0,0\nd.jpg,1,1,1\n'
LABELS = [[0, 2], [1], [], [0, 1, 2]]


@pytest.fixture
def scenes(tmp_path):
    """The same four pictures as a list and as a table."""
    for name in ('desert 1.jpg', 'sub/b.jpg', 'c.jpg', 'd.jpg'):
        picture(tmp_path / 'images' / name)
    (tmp_path / 'train.txt').write_text(LIST)
    (tmp_path / 'train.csv').write_text(TABLE, encoding='utf-8')
    (tmp_path / 'test.txt').write_text('c.jpg 1\n')
    (tmp_path / 'classes.txt').write_text('desert\nsea\ntrees\n')
    return tmp_path


@pytest.mark.parametrize('file', ['train.txt', 'train.csv'])
def test_list_and_table_say_the_same(scenes, file):
    data = LongTailedMultiLabel(file, classes='classes.txt', data_root=str(scenes), data_prefix='images')
    assert [data.get_cat_ids(i) for i in range(4)] == LABELS
    assert data.metainfo == {'classes': ('desert', 'sea', 'trees'), 'class_counts': [2, 2, 2], 'num_train_images': 4}


def test_names_without_a_class_list(scenes):
    common = dict(data_root=str(scenes), data_prefix='images')
    assert LongTailedMultiLabel('train.txt', **common).metainfo['classes'] == ('0', '1', '2')
    assert LongTailedMultiLabel('train.csv', **common).metainfo['classes'] == ('desert', 'sea', 'trees')
    test = LongTailedMultiLabel('test.txt', train_ann_file='train.txt', **common)
    assert test.metainfo['class_counts'] == [2, 2, 2] and test.get_cat_ids(0) == [1]


def test_some_columns_in_another_order(scenes):
    _, scores, names, _ = read_label_scores(str(scenes / 'train.csv'), ['trees', 'desert'])
    assert names == ('trees', 'desert') and (scores == 1).tolist() == [[True] * 2, [False] * 2, [False] * 2, [True] * 2]


def test_dataset_positives_and_samplers(scenes):
    data = LongTailedMultiLabel('train.txt', data_root=str(scenes), data_prefix='images')
    images, labels = dataset_positives(data)
    assert list(zip(images, labels)) == [(0, 0), (0, 2), (1, 1), (3, 0), (3, 1), (3, 2)]
    # Two images a class: 0 and 3, 1 and 3, 0 and 3; image 2 has no class and is never drawn.
    order = np.array(list(ClassAwareSampler(data, samples_per_class=2, num_samples=600, seed=0)))
    assert np.bincount(order, minlength=4).tolist() == [200, 100, 0, 300]
    sampler = ClassBalancedSampler(data, seed=0)
    assert len(sampler) == 4 and 2 not in set(sampler)


def test_unreadable_picture_is_named(scenes):
    (scenes / 'images/d.jpg').write_bytes(b'no picture')
    data = LongTailedMultiLabel('train.txt', data_root=str(scenes), data_prefix='images', pipeline=PIPELINE)
    with pytest.raises(InputError, match=r"The picture '.*d\.jpg' cannot be read .*replace it\."):
        data[3]


@pytest.mark.parametrize(
    ('content', 'sentence'),
    [
        ('a.jpg 0 1 0 0\n', r'line 1: label 0 stands there twice.*\.csv'),
        ('', 'lists no images'),
        ('a.jpg;0;1\n', r"line 1: 'a\.jpg;0;1' is not of the form 'relative/path label label"),
        ('a.jpg 0,1\n', r"line 1: 'a\.jpg 0,1' is not of the form"),
        ('b.jpg 0\na.jpg 1.0\n', r"line 2: 'a\.jpg 1\.0' is not of the form"),
    ],
)
def test_bad_lists(tmp_path, content, sentence):
    (tmp_path / 'a.txt').write_text(content)
    with pytest.raises(InputError, match=sentence):
        parse_label_list(str(tmp_path / 'a.txt'))


@pytest.mark.parametrize(
    ('content', 'sentence'),
    [
        ('', "no column 'image'"),
        ('path,a\nx.jpg,1\n', "no column 'image'"),
        ('image,a\n', 'no rows'),
        ('image,b\nx.jpg,1\n', "no column 'a', which the class list names: its columns are image, b"),
        ('image,a,a\nx.jpg,1,0\n', "the column 'a' 2 times"),
        ('image,a\n,1\n', 'line 2: the image is missing'),
        ('image;a\nx.jpg;yes\n', "line 2: the value 'yes' is neither 0 nor 1 in the column 'a'"),
        ('image,a\nx.jpg,0.5\n', "the value '0.5' is neither"),
        ('image,a\nx.jpg,1,0\n', 'line 2: 3 values, but the header has 2 columns; a text with a comma'),
        ('image,a\nx.jpg,2\n', "line 2: the value '2' is neither 0 nor 1"),
        ('image,a\nx.jpg\n', 'line 2: 1 values, but the header has 2'),
    ],
)
def test_bad_tables(tmp_path, content, sentence):
    (tmp_path / 'a.csv').write_text(content)
    with pytest.raises(InputError, match=sentence):
        read_label_scores(str(tmp_path / 'a.csv'), ['a'])


SCORES = [[1, 0, -1], [0, 1, 1]]


@pytest.mark.parametrize(
    ('content', 'scores', 'blank'),
    [
        ('image;a;b;c\r\nx.jpg;1;0;-1\r\ny.jpg;0;1;1\r\n', SCORES, 0),
        ('image,a,b,c\nx.jpg,1.0,0.0,nan\ny.jpg,0.0,1.0,1.0\n', SCORES, 0),
        ('image;a;b;c\nx.jpg;1,0;;-1,0\ny.jpg;;1,0;1\n', SCORES, 2),
        ('\ufeffa\tImage\tb\tc\n1\tx.jpg\t0\t-1.0\nFalse\ty.jpg\tTrue\tTRUE', SCORES, 0),
        ('sep=|\nimage|a|b|c\nx.jpg|1| 0|NA\n|||\ny.jpg|0|1|1|||\n', SCORES, 0),
        ('image;c;"sand; dry";a\nx.jpg;-1;0;1\ny.jpg;1;1;0\n', SCORES, 0),
    ],
)
def test_tables_as_spreadsheets_write_them(tmp_path, content, scores, blank):
    (tmp_path / 'a.csv').write_text(content, newline='')
    names = ['a', 'sand; dry', 'c'] if 'sand' in content else ['a', 'b', 'c']
    files, found, classes, blanks = read_label_scores(str(tmp_path / 'a.csv'), names)
    assert (files, found.tolist(), classes, blanks) == (['x.jpg', 'y.jpg'], scores, tuple(names), blank)


def test_labels_that_are_not_known_are_marked_for_losses_and_metrics(scenes):
    """In a split with such labels every sample has scores; others have labels alone."""
    (scenes / 'odd.TSV').write_text('image\ta\tb\nc.jpg\t1\t-1\nd.jpg\t\t1\n')
    common = dict(data_root=str(scenes), data_prefix='images', pipeline=PIPELINE)
    odd = LongTailedMultiLabel('odd.TSV', **common)
    assert odd.metainfo['class_counts'] == [1, 1]
    samples = [odd[i]['data_samples'] for i in range(2)]
    assert [s.gt_score.tolist() for s in samples] == [[1, -1], [0, 1]]
    assert [s.gt_label.tolist() for s in samples] == [[0], [1]]
    (scenes / 'even.csv').write_text('image,a,b\nc.jpg,1,0\nd.jpg,,1\n')
    even = LongTailedMultiLabel('even.csv', train_ann_file='odd.TSV', **common)
    assert 'gt_score' not in even[0]['data_samples'] and even.get_cat_ids(1) == [1]


def test_lists_of_windows(scenes):
    (scenes / 'w.txt').write_text('images\\c.jpg 0\r\nimages\\d.jpg 0 1\r\n')
    data = LongTailedMultiLabel('w.txt', data_root=str(scenes))
    assert [data.get_data_info(i)['img_path'] for i in range(2)] == [f'{scenes}/images/{n}.jpg' for n in 'cd']
    (scenes / 'w.txt').write_text('images\\none.jpg 0\n')
    with pytest.raises(InputError, match=r'1 of the 1 images .*none\.jpg'):
        LongTailedMultiLabel('w.txt', data_root=str(scenes))


@pytest.mark.parametrize(
    ('changes', 'sentence'),
    [
        (dict(ann_file='nowhere.txt'), r"annotation file '.*nowhere\.txt' does not exist"),
        (dict(ann_file='nowhere.csv'), r"annotation file '.*nowhere\.csv' does not exist"),
        (dict(ann_file='nowhere.json'), r"annotation file '.*nowhere\.json' does not exist"),
        (dict(train_ann_file='nowhere.txt'), 'does not exist'),
        (dict(classes='nowhere.txt'), "class list '.*nowhere.txt' does not exist"),
        (dict(classes=['a', 'b']), r"train\.txt', image 1: label 2 is outside \[0, 2\)\.$"),
        (dict(classes=['a', 'b', 'c', 'd']), r"no training image of class 3 \('d'\)"),
        (dict(data_prefix='nowhere'), "image folder '.*nowhere' does not exist"),
        (dict(data_prefix='.'), '4 of the 4 images'),
        (dict(ann_file='images'), 'name the images of the split by img_ids'),
        (dict(img_ids='train.txt'), 'lists its images itself'),
        (dict(class_freq='nowhere.pkl'), "'.*nowhere.pkl' does not exist"),
    ],
)
def test_bad_arguments(scenes, changes, sentence):
    arguments = {**dict(ann_file='train.txt', data_root=str(scenes), data_prefix='images'), **changes}
    with pytest.raises(InputError, match=sentence):
        LongTailedMultiLabel(**arguments)


def test_labels_from_1_are_noticed(scenes):
    (scenes / 'train.txt').write_text('c.jpg\nd.jpg 1 2 3\n')
    with pytest.raises(InputError, match=r'image 2: label 3 is outside \[0, 3\)\. The labels seem to start at 1'):
        LongTailedMultiLabel('train.txt', classes='classes.txt', data_root=str(scenes), data_prefix='images')


def test_no_labels_at_all(scenes):
    (scenes / 'train.txt').write_text('c.jpg\n')
    with pytest.raises(InputError, match='no image has a label'):
        LongTailedMultiLabel('train.txt', classes='classes.txt', data_root=str(scenes), data_prefix='images')


def test_test_labels_are_checked_too(scenes):
    (scenes / 'test.txt').write_text('c.jpg 5\n')
    with pytest.raises(InputError, match=r'label 5 is outside \[0, 3\)'):
        LongTailedMultiLabel('test.txt', train_ann_file='train.txt', data_root=str(scenes), data_prefix='images')


def test_bad_voc(voc):
    folder = voc / 'VOC2012/Annotations'
    with pytest.raises(InputError, match=r"'.*2008_000099\.xml' does not exist"):
        parse_voc(str(folder), ['2008_000099'])
    (folder / 'x.xml').write_text('<annotation><object><name>dragon</name></object></annotation>')
    with pytest.raises(InputError, match="object 'dragon', which is no class of VOC"):
        parse_voc(str(folder), ['x'])
    (folder / 'x.xml').write_text('<annotation>')
    with pytest.raises(InputError, match='cannot be read as XML'):
        parse_voc(str(folder), ['x'])


def test_bad_coco(coco):
    path = str(coco / 'annotations/instances.json')
    with pytest.raises(InputError, match=r"no image with the id '8' \(1 of 2 ids are unknown\)"):
        parse_coco(path, ['7', '8'])
    with pytest.raises(InputError, match="no category 'dragon'"):
        parse_coco(path, None, ['person', 'dragon'])
    for content, sentence in (
        ('{', 'bad.json. is not valid JSON'),
        ('[]', "has no list 'images'"),
        ('{"images": []}', "has no list 'categories'"),
    ):
        (coco / 'bad.json').write_text(content)
        with pytest.raises(InputError, match=sentence):
            parse_coco(str(coco / 'bad.json'))


def test_bad_image_ids(tmp_path):
    with pytest.raises(InputError, match='list of image ids .* does not exist'):
        read_image_ids(str(tmp_path / 'img_id.txt'))
    (tmp_path / 'img_id.txt').write_text('\n')
    with pytest.raises(InputError, match='lists no images'):
        read_image_ids(str(tmp_path / 'img_id.txt'))
    (tmp_path / 'img_id.pkl').write_bytes(pickle.dumps([554625, 118113]))
    with pytest.raises(InputError, match='not a text with one image id a line'):
        read_image_ids(str(tmp_path / 'img_id.pkl'))


@pytest.mark.parametrize(
    'content',
    [
        [3, 2],
        {'class_freq': np.array([3, 2])},
        {'class_freq': np.array([3, 2]), 'neg_class_freq': np.array([1, 1])},
        {'class_freq': np.array([3, 0]), 'neg_class_freq': np.array([1, 4])},
        {'class_freq': np.array([]), 'neg_class_freq': np.array([])},
        {'class_freq': 'x', 'neg_class_freq': 'y'},
    ],
)
def test_bad_class_freq(tmp_path, content):
    dump(content, tmp_path / 'a.pkl')
    with pytest.raises(InputError, match='does not hold class_freq and neg_class_freq'):
        read_class_freq(str(tmp_path / 'a.pkl'), 2)


def test_class_freq_of_other_classes(tmp_path):
    dump({'class_freq': np.array([3, 2]), 'neg_class_freq': np.array([1, 2])}, tmp_path / 'a.pkl')
    assert read_class_freq(str(tmp_path / 'a.pkl'), 2)[1] == 4
    with pytest.raises(InputError, match='counts of 2 classes, but the dataset has 3'):
        read_class_freq(str(tmp_path / 'a.pkl'), 3)


@pytest.mark.parametrize(
    'content',
    [
        [],
        {'head': {0}, 'middle': {1}},
        {'head': {0}, 'middle': {1}, 'tail': set()},
        {'head': {0}, 'middle': {1}, 'tail': {1, 2}},
        {'head': {0}, 'middle': {1}, 'tail': {2, 3}},
    ],
)
def test_bad_class_split(tmp_path, content):
    dump(content, tmp_path / 'a.pkl')
    with pytest.raises(InputError, match='sets that have each of the 3 classes once'):
        read_class_split(str(tmp_path / 'a.pkl'), 3)


def test_class_split(tmp_path):
    dump({'head': {np.int64(2)}, 'middle': set(), 'tail': {np.int64(0), np.int64(1)}}, tmp_path / 'a.pkl')
    assert read_class_split(str(tmp_path / 'a.pkl'), 3).tolist() == [2, 2, 0]

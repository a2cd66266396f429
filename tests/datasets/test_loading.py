"""mmlt.LoadPicture in pipelines: in place of MMPretrain's loader, with file backends, and the order of channels."""

import numpy as np
import pytest
from mmcv.transforms import LoadImageFromFile
from mmengine.dataset import Compose
from mmengine.registry import DefaultScope
from mmpretrain.registry import DATASETS, TRANSFORMS
from PIL import Image

from mmlt import InputError
from mmlt.datasets import LongTailedDataset, LongTailedMultiLabel
from mmlt.datasets.long_tailed_dataset import read_pipeline
from mmlt.datasets.transforms import LoadPicture, compose_like, picture_pipeline, takes_and_gives_bgr

OURS, PLAIN, PACK = dict(type='mmlt.LoadPicture'), dict(type='LoadImageFromFile'), dict(type='PackInputs')
DEEP = np.linspace(0, 65535, 64).astype(np.uint16).reshape(8, 8)


def write(path, array):
    path.parent.mkdir(exist_ok=True)
    Image.fromarray(array).save(path)
    return str(path)


@pytest.mark.parametrize('loader', [OURS, PLAIN, dict(PLAIN, imdecode_backend='pillow')])
def test_16_bit_pictures_are_their_8_bit_twins(tmp_path, loader):
    """The training pictures of a config, whichever of the two loaders it names."""
    for name, values in (('deep', DEEP), ('flat', (DEEP >> 8).astype(np.uint8))):
        write(tmp_path / name / 'a.png', values)
        write(tmp_path / name / 'b.png', values.T.copy())
    (tmp_path / 'list.txt').write_text('a.png 0\nb.png 1\n')
    options = dict(ann_file='list.txt', data_root=str(tmp_path), pipeline=[loader, PACK])
    deep, flat = (LongTailedDataset(data_prefix=name, **options) for name in ('deep', 'flat'))
    for i in range(2):
        assert np.array_equal(deep[i]['inputs'], flat[i]['inputs'])
        assert len(np.unique(deep[i]['inputs'])) == 64
    multi = LongTailedMultiLabel(data_prefix='deep', **options)
    assert np.array_equal(multi[0]['inputs'], flat[0]['inputs'])


def test_is_mmpretrains_loader_for_ordinary_pictures(tmp_path):
    values = np.random.default_rng(0).integers(0, 256, (9, 7, 3), dtype=np.uint8)
    for suffix in ('png', 'jpg', 'bmp'):
        info = dict(img_path=write(tmp_path / f'a.{suffix}', values))
        ours, theirs = LoadPicture()(dict(info)), LoadImageFromFile(imdecode_backend='pillow')(dict(info))
        assert np.array_equal(ours.pop('img'), theirs.pop('img')) and ours == theirs
    assert LoadPicture(to_float32=True)(info)['img'].dtype == np.float32
    assert isinstance(LoadPicture(), LoadImageFromFile)


def test_file_backends(tmp_path):
    path = write(tmp_path / 'a.png', DEEP)
    for options in (dict(backend_args=dict(backend='local')), dict(file_client_args=dict(backend='disk'))):
        with pytest.warns() if 'file_client_args' in options else DefaultScope.overwrite_default_scope('mmpretrain'):
            loader = TRANSFORMS.build(dict(OURS, **options))
        assert loader(dict(img_path=path))['img'].shape == (8, 8, 3)


def test_unreadable_pictures(tmp_path):
    (tmp_path / 'a.png').write_bytes(b'text')
    with pytest.raises(InputError, match=r"The picture '.*a\.png' cannot be read \(Unidentified.*it is damaged"):
        LoadPicture()(dict(img_path=str(tmp_path / 'a.png')))
    with pytest.raises(InputError, match=r"The picture '.*b\.png' cannot be read \(FileNotFound"):
        LoadPicture()(dict(img_path=str(tmp_path / 'b.png')))
    assert LoadPicture(ignore_empty=True)(dict(img_path=str(tmp_path / 'a.png'))) is None
    path = write(tmp_path / 'f.tif', np.full((4, 4), 7.0, np.float32))
    (tmp_path / 'list.txt').write_text('f.tif 0\n')
    dataset = LongTailedDataset(ann_file='list.txt', data_root=str(tmp_path), pipeline=[PLAIN])
    with pytest.raises(InputError, match=rf"'{path}' cannot be read \(its floating-point .*skip_unreadable=True"):
        dataset[0]


def test_pictures_that_are_loaded_already(tmp_path):
    """As MMPretrain's inferencers give them: they take out their own loader only."""
    loaded = LoadPicture()(dict(img=DEEP))
    assert np.array_equal(loaded['img'][..., 0], DEEP >> 8) and loaded['ori_shape'] == (8, 8)


def test_what_stays_of_mmpretrains_loader():
    kept = [dict(PLAIN, color_type='grayscale'), dict(PLAIN, imdecode_backend='tifffile'), PACK, LoadImageFromFile()]
    assert picture_pipeline(kept) == kept
    replaced = picture_pipeline([dict(PLAIN, to_float32=True, color_type='color', imdecode_backend='pillow'), PACK])
    assert replaced == [dict(OURS, to_float32=True), PACK]
    for name in ('mmcv.LoadImageFromFile', 'mmpretrain.LoadImageFromFile', LoadImageFromFile):
        assert picture_pipeline([dict(type=name)]) == [OURS]


def test_a_data_set_of_another_project_keeps_its_loader(tmp_path):
    write(tmp_path / 'a' / '1.png', DEEP)
    config = dict(type='CustomDataset', data_root=str(tmp_path), pipeline=[PLAIN])
    assert read_pipeline(config) == [PLAIN]
    assert read_pipeline(dict(config, type='mmlt.LongTailedDataset')) == [OURS]
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        theirs = DATASETS.build(config)
        assert type(theirs.pipeline.transforms[0]) is LoadImageFromFile
        assert type(compose_like(theirs, [PLAIN]).transforms[0]) is LoadImageFromFile
        theirs.pipeline = Compose([LoadPicture()])
        assert type(compose_like(theirs, [PLAIN]).transforms[0]) is LoadPicture
    with pytest.raises(InputError, match='The dataset ConcatDataset has no pipeline of its own'):
        read_pipeline(dict(type='ConcatDataset', datasets=[config]))


def test_caches_of_different_loaders_differ():
    """A cache of features goes by what a pipeline says of itself."""
    loaders = (
        LoadPicture(),
        LoadPicture(to_float32=True),
        LoadPicture(backend_args=dict(backend='local')),
        LoadImageFromFile(imdecode_backend='pillow'),
    )
    assert len({repr(Compose([loader])) for loader in loaders}) == 4
    assert repr(LoadPicture()) == repr(LoadPicture())


def exchange(**settings):
    return dict(type='NumpyToPIL' if 'to_rgb' in settings else 'PILToNumpy', **settings)


@pytest.mark.parametrize(
    'pipeline, to_rgb, expected',
    [
        ([OURS, PACK], True, (True, True)),
        ([PLAIN, PACK], False, (True, True)),  # a model that takes BGR
        ([PLAIN, exchange(to_rgb=True), exchange(to_bgr=False), PACK], False, (True, False)),
        ([PLAIN, exchange(to_rgb=True), exchange(to_bgr=True), PACK], True, (True, True)),
        ([PACK], False, (False, False)),  # arrays in RGB all the way
        ([exchange(to_rgb=False), exchange(to_bgr=True), PACK], True, (False, True)),  # CIFAR's
        ([PACK], True, (True, True)),
    ],
)
def test_order_of_channels(pipeline, to_rgb, expected):
    assert takes_and_gives_bgr(pipeline, to_rgb) == expected
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        built = [TRANSFORMS.build(dict(transform)) for transform in pipeline]
    assert takes_and_gives_bgr(built, to_rgb) == expected

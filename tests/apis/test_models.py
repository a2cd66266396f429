"""Models by name and by config: never with random weights, always with their class names."""

import re

import mmengine
import pytest
import torch
from mmengine.config import Config
from mmpretrain import ImageClassificationInferencer
from mmpretrain import list_models as list_all_models
from mmpretrain.apis import ModelHub
from mmpretrain.registry import MODELS

from mmlt import InputError
from mmlt.apis import get_model, inference, list_models, load_weights, models
from mmlt.checkpoints import read_checkpoint
from mmlt.utils.class_info import ClassInfo

MODEL = 'mmlt-tiny-vit'
CLASSES = ('apple', 'pear', 'plum')


@pytest.fixture
def config(tmp_path, clip_file):
    """A zero-shot classifier that knows its classes."""
    path = tmp_path / 'zeroshot.py'
    path.write_text(
        f"""
tower = dict(model='{MODEL}', pretrained='{clip_file}')
model = dict(
    type='ImageClassifier',
    backbone=dict(type='mmlt.OpenCLIPVision', **tower),
    head=dict(type='mmlt.TextClsHead', text=dict(type='mmlt.OpenCLIPText', **tower)),
    data_preprocessor=dict(type='mmlt.CLIPDataPreprocessor'))
pipeline = [dict(type='LoadImageFromFile'), dict(type='Resize', scale=(32, 32)), dict(type='PackInputs')]
test_dataloader = dict(dataset=dict(type='mmlt.LongTailedDataset', ann_file='t.txt', classes={list(CLASSES)!r},
                                    pipeline=pipeline))
custom_imports = dict(imports=['mmlt'])
del tower, pipeline
"""
    )
    return str(path)


@pytest.fixture
def linear(tmp_path, config):
    """A config whose classifier is trained, and its checkpoint."""
    cfg = Config.fromfile(config)
    cfg.model.head = dict(type='LinearClsHead', num_classes=3, in_channels=64)
    path, weights = str(tmp_path / 'linear.py'), str(tmp_path / 'linear.pth')
    cfg.dump(path)
    model = MODELS.build(cfg.model)
    model.init_weights()
    meta = dict(dataset_meta=dict(classes=['a', 'b', 'c']))
    torch.save(dict(meta=meta, state_dict=model.state_dict()), weights)
    return path, weights


def test_models_are_registered_once(repo):
    names = list_models()
    assert names == list_models() and len(names) == len(set(names))
    assert names == models.register_models()
    indexed = mmengine.load(repo / 'model-index.yml')['Import']
    assert sorted(indexed) == [str(p.relative_to(repo)) for p in sorted(repo.glob('configs/*/metafile.yml'))]
    assert 'ballad_rn50_imagenet-lt' in list_models('ballad_rn50')
    assert not list_models('resnet50')  # MMPretrain's own are not among them
    assert set(names) <= set(list_all_models())
    assert ModelHub.get('BALLAD_rn50_imagenet-lt').config.model.type == 'ImageClassifier'


def test_a_name_that_is_taken(monkeypatch):
    names = list_models()
    monkeypatch.setattr(ModelHub._models_dict[names[0]], 'config', '/elsewhere.py')
    with pytest.raises(InputError, match=f"another model named '{names[0]}' \\(/elsewhere.py\\)"):
        list_models()


def test_installed_without_the_repository(monkeypatch, tmp_path):
    monkeypatch.setattr(models, 'INDEX', tmp_path / 'model-index.yml')
    with pytest.raises(InputError, match="lies in mmlt's repository"):
        list_models()


def test_unknown_model():
    with pytest.raises(InputError, match="no model 'ballad_rn51'. Near it: ballad_"):
        get_model('ballad_rn51')
    with pytest.raises(InputError, match="no model 'rn50_ballad_imagenet-lt'. Near it: .*ballad_rn50_imagenet-lt"):
        get_model('rn50_ballad_imagenet-lt')  # not by its first letters
    with pytest.raises(InputError, match="device 'gpu' cannot be used"):
        get_model('ballad_rn50_imagenet-lt', device='gpu')
    with pytest.raises(InputError, match="config 'nowhere.py' does not exist"):
        get_model('nowhere.py')


def test_without_checkpoint_the_pretrained_weights(config, clip_file):
    model = get_model(config)
    expected = MODELS.build(Config.fromfile(config).model)
    expected.head.set_class_info(ClassInfo(CLASSES))
    expected.init_weights()
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(model(images), expected.eval()(images))
    assert not model.training and model._dataset_meta['classes'] == list(CLASSES)
    other = get_model(config, classes=['a thing', 'another'])
    assert other(images).shape == (2, 2) and other._dataset_meta['classes'] == ['a thing', 'another']


@pytest.mark.parametrize(
    'options',
    [
        {'model.neck': dict(type='mmlt.BalancedLinearAdapter', in_channels=64)},
        {'model.backbone.pretrained': None},
        {'model.head.text.pretrained': None},
        {'model.head': dict(_delete_=True, type='LinearClsHead', num_classes=3, in_channels=64)},
    ],
)
def test_random_weights_are_refused(config, options):
    with pytest.raises(InputError, match="zeroshot.py' needs a checkpoint: it has parts that are trained"):
        get_model(config, cfg_options=options)


def test_a_model_by_its_name_needs_a_checkpoint():
    with pytest.raises(InputError, match='needs a checkpoint'):
        get_model('ballad_rn50_imagenet-lt')


def test_class_names_come_with_the_checkpoint(linear):
    model = get_model(*linear)
    assert model._dataset_meta['classes'] == ['a', 'b', 'c']  # not those of the config's data set
    assert get_model(*linear, classes=['x', 'y', 'z'])._dataset_meta['classes'] == ['x', 'y', 'z']
    with pytest.raises(InputError, match='The model has 3 classes, but 2 class names'):
        get_model(*linear, classes=['x', 'y'])


def test_checkpoint_without_class_names(linear, tmp_path):
    config, weights = linear
    torch.save(read_checkpoint(weights)['state_dict'], weights)
    assert get_model(config, weights)._dataset_meta['classes'] == list(CLASSES)  # the config's
    with pytest.raises(InputError, match='does not tell its class names'):
        get_model(config, weights, cfg_options={'test_dataloader': None})


def test_checkpoint_of_another_model(config, linear, tmp_path):
    path, weights = linear
    with pytest.raises(InputError, match=r"lacks \d+ weights of this config's model, the first is 'head.text"):
        get_model(config, weights)
    adapter = {'model.neck': dict(type='mmlt.BalancedLinearAdapter', in_channels=64)}
    model = get_model(path, weights)
    state = {**model.state_dict(), 'neck.linear.weight': torch.zeros(64, 64)}
    torch.save(dict(state_dict=state), tmp_path / 'more.pth')
    with pytest.raises(InputError, match="has 1 weights more than this config's model, the first is 'neck.linear"):
        get_model(path, str(tmp_path / 'more.pth'))
    with pytest.raises(InputError, match='lacks 2 weights'):
        get_model(path, weights, cfg_options=adapter)
    with pytest.raises(InputError, match=re.escape('head.fc.weight of shape (3, 64), but')):
        get_model(path, weights, cfg_options={'model.head.num_classes': 4})


def test_files_that_are_no_checkpoints(linear, tmp_path):
    model = get_model(*linear)
    with pytest.raises(InputError, match='does not exist'):
        load_weights(model, str(tmp_path / 'none.pth'))
    (tmp_path / 'text.pth').write_text('no weights')
    with pytest.raises(InputError, match="text.pth' cannot be read: it is no file of weights"):
        load_weights(model, str(tmp_path / 'text.pth'))
    torch.save(dict(model={'w': torch.zeros(1)}), tmp_path / 'published.pth')
    with pytest.raises(InputError, match='a published checkpoint is converted first'):
        load_weights(model, str(tmp_path / 'published.pth'))


def test_mmpretrains_inferencer(linear, picture_folder):
    pictures = sorted(str(p) for p in (picture_folder / 'images/pear').glob('*.png'))[:2]
    for inferencer in (ImageClassificationInferencer(get_model(*linear)), ImageClassificationInferencer(*linear)):
        results = inferencer(pictures)
        expected = inference(get_model(*linear), pictures, top=1)
        assert [r['pred_class'] for r in results] == [e['top'][0][0] for e in expected]
        assert [r['pred_score'] for r in results] == pytest.approx([e['top'][0][1] for e in expected], abs=1e-5)

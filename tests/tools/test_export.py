"""Exported classifiers have the logits of the trained ones, in any batch, without a text tower."""

import importlib.util
import json
from pathlib import Path

import onnx
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import RUNNERS
from mmpretrain.registry import MODELS
from torch import nn

from mmlt import InputError
from mmlt.apis import exporting, get_model
from mmlt.checkpoints.export import FORMATS, export, load_exported, median_times
from mmlt.cli import export as export_tool
from mmlt.datasets.pictures import READING
from mmlt.models import BalancedLinearAdapter
from mmlt.models.anchors import Anchors
from mmlt.models.deployed import DeployedClassifier, plain_classifier
from mmlt.utils.class_info import ClassInfo

REPO = Path(__file__).parent.parent.parent
CLASSES = ['cat', 'dog', 'red fox']
VIT, RN, CIFAR = 'mmlt-tiny-vit', 'mmlt-tiny-rn', 'cifar'
WIDTH = {VIT: 64, RN: 128, CIFAR: 16}
SIZE = 32
# Every head that a classifier of configs/ has, with the backbone that it is tested on.
BACKBONES = {
    'text': VIT,
    'adapter': VIT,
    'text-adapter': VIT,
    'lgr': VIT,
    'knn': VIT,
    'cosine': VIT,
    'linear': RN,
    'multi-label': CIFAR,
    'tau-norm': CIFAR,
    'lws': CIFAR,
    'ncm': CIFAR,
}
# Merged, a classifier of MORE has the graph of the plain one: that is shown for all heads, and exported is one.
EXPORTED = [*((kind, False) for kind in BACKBONES), ('multi-label', True)]
pytestmark = pytest.mark.filterwarnings('ignore:.*torch.jit:FutureWarning', 'ignore:.*torch.jit:DeprecationWarning')


def head_config(kind, name):
    adapter = dict(type='mmlt.BalancedLinearAdapter', in_channels=WIDTH[name])
    text = dict(type='mmlt.TextClsHead', text=dict(type='mmlt.OpenCLIPText', model=name), templates=['a {}', '{}'])
    number = dict(num_classes=3, in_channels=WIDTH[name])
    return {
        'text': text,
        'adapter': text,
        'text-adapter': dict(text, text_adapter=adapter),
        'lgr': dict(type='mmlt.LGRHead', fusion=0.3, **number),
        'knn': dict(type='mmlt.AnchorKNNHead', num_neighbours=4, **number),
        'cosine': dict(type='mmlt.CosineClsHead', init='random', **number),
        'linear': dict(type='LinearClsHead', **number),
        'multi-label': dict(type='MultiLabelLinearClsHead', **number),
        'tau-norm': dict(type='mmlt.TauNormClsHead', **number),
        'lws': dict(type='mmlt.LWSHead', **number),
        'ncm': dict(type='mmlt.NCMHead', **number),
    }[kind]


def model_config(kind, name=None, more=False, **preprocessor):
    name = name or BACKBONES[kind]
    cfg = dict(
        type='ImageClassifier',
        backbone=dict(type='mmlt.OpenCLIPVision', model=name),
        head=head_config(kind, name),
        data_preprocessor=dict(type='mmlt.CLIPDataPreprocessor', **preprocessor),
    )
    if kind == 'adapter':
        cfg['neck'] = dict(type='mmlt.BalancedLinearAdapter', in_channels=WIDTH[name])
    if kind == 'cosine':  # as in LIFT
        cfg['backbone'].update(projection=False, adapter=dict(type='mmlt.AdaptFormer', bottleneck=4))
    if name == CIFAR:
        cfg['backbone'] = dict(type='mmlt.CIFARResNet', depth=8, base_channels=4)
        cfg['neck'] = dict(type='GlobalAveragePooling')
    return dict(type='mmlt.MORE', classifier=cfg, peak=0.0) if more else cfg


def built(kind, name=None, more=False, **preprocessor):
    """A model with random weights, as a training leaves them."""
    name = name or BACKBONES[kind]
    model = MODELS.build(model_config(kind, name, more, **preprocessor))
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
            nn.init.uniform_(module.weight, 0.5, 1.5)  # open_clip starts some at zero: all pictures would look alike
    for parameter, value in model.named_parameters():
        if parameter.endswith(('.B', '.up.weight', '.log_scales')):  # these start at zero
            nn.init.normal_(value, std=0.3)
    if name == RN:
        model.backbone.visual.attnpool.c_proj.weight.data *= 20
    if hasattr(model.head, 'set_class_info'):
        model.head.set_class_info(ClassInfo(CLASSES))
    if kind in ('lgr', 'knn'):
        counts, features = [3, 1, 5], torch.randn(3, 5, WIDTH[name])
        for c, n in enumerate(counts):
            features[c, n:] = 0
        texts = [['a sentence'] * n for n in counts]
        model.head.take(Anchors(features, torch.tensor(counts), torch.zeros(3, 5), texts, 9.0))
    if kind == 'ncm':
        model.head.means.normal_()
    return model.eval()


def trained(tmp_path, kind, name=None, more=False, **preprocessor):
    """A config and a checkpoint with random weights, as a training leaves them."""
    model = built(kind, name, more, **preprocessor)
    pipeline = [dict(type='Resize', scale=(SIZE, SIZE)), dict(type='PackInputs')]
    (tmp_path / 'config.py').write_text(
        f'model = {model_config(kind, name, more, **preprocessor)!r}\n'
        f'test_dataloader = dict(dataset=dict(type="mmlt.LongTailedDataset", ann_file="none.txt", '
        f'pipeline={pipeline!r}))\n'
    )
    torch.save(
        dict(meta=dict(dataset_meta=dict(classes=CLASSES)), state_dict=model.state_dict()), tmp_path / 'weights.pth'
    )
    return str(tmp_path / 'config.py'), str(tmp_path / 'weights.pth')


def pictures(number=5, size=SIZE):
    """Random tiles of random colours."""
    tiles = torch.randint(0, 256, (number, 3, 4, 4), generator=torch.Generator().manual_seed(3))
    return tiles.repeat_interleave(size // 4, 2).repeat_interleave(size // 4, 3).float()


@torch.no_grad()
def reference(model, images):
    """Logits and probabilities as a test computes them: BGR pictures through the model's own preprocessor and head."""
    inputs = model.data_preprocessor(dict(inputs=images.flip(1).to(torch.uint8)))['inputs']
    return model(inputs, mode='tensor'), torch.stack([s.pred_score for s in model(inputs, mode='predict')])


@pytest.mark.parametrize('more', [False, True], ids=['plain', 'more'])
@pytest.mark.parametrize('kind', BACKBONES)
def test_graph_is_the_trained_model(kind, more):
    model, images = built(kind, more=more), pictures()
    assert any('parametrizations' in key for key in model.state_dict()) == more
    expected = reference(model, images)
    graph = DeployedClassifier(model)
    logits, probabilities = graph(images)
    assert expected[1].std(0).max() > 1e-4  # pictures are told apart
    assert (logits - expected[0]).abs().max() <= 1e-4
    assert (probabilities - expected[1]).abs().max() <= 5e-6
    assert not any(part in key for key in graph.state_dict() for part in ('clip', 'text', 'parametrizations'))
    if more:
        assert graph.state_dict().keys() == DeployedClassifier(built(kind)).state_dict().keys()
        assert type(plain_classifier(model)).__name__ == 'ImageClassifier'


@pytest.mark.parametrize('form', FORMATS)
@pytest.mark.parametrize('kind, more', EXPORTED, ids=[f'{"more-" * more}{kind}' for kind, more in EXPORTED])
def test_export_in_any_batch(tmp_path, capsys, kind, more, form):
    config, weights = trained(tmp_path, kind, more=more)
    out = str(tmp_path / 'out' / f'model{FORMATS[form]}')
    arguments = [] if hasattr(get_model(config, weights).backbone, 'visual') else ['--image-size', str(SIZE)]
    result = export_tool.main([config, weights, '--format', form, '--out', out, '--time-batch', '3', *arguments])
    assert result['difference'] <= 1e-4
    assert form in capsys.readouterr().out
    exported, model = load_exported(out, form), get_model(config, weights)
    for number in (1, 5):
        images = pictures(number)
        logits, probabilities = exported(images)
        expected = reference(model, images)
        assert logits.shape == (number, 3)
        assert (logits - expected[0]).abs().max() <= 1e-4
        assert (probabilities - expected[1]).abs().max() <= 1e-5
    about = json.loads(Path(f'{out}.json').read_text())
    assert about['classes'] == CLASSES
    assert about['input'] == dict(name='images', shape=['N', 3, SIZE, SIZE])
    assert about['test_pipeline'][0]['type'] == 'Resize'
    assert about['picture_reading']['orientation'] == 'EXIF orientation is applied'
    if form == 'onnx':
        onnx.checker.check_model(out)
        assert not Path(f'{out}.data').exists()  # one file


def test_head_that_only_a_test_fits(two_stages):
    """NCMHead and AnchorKNNHead are never trained: the model of the test's runner is exported."""
    (two_stages / 'ncm.py').write_text(
        f"""
_base_ = ['./a.py']
model = dict(head=dict(_delete_=True, type='mmlt.NCMHead', num_classes=3, in_channels=64))
train_cfg = train_dataloader = optim_wrapper = param_scheduler = None
val_cfg = val_dataloader = val_evaluator = None
default_hooks = dict(fit_head=dict(type='mmlt.FitHeadHook', dataset=dict(
    type='mmlt.LongTailedDataset', data_root='{two_stages}', data_prefix='images', classes='classes.txt',
    ann_file='train.txt')))
"""
    )
    cfg = Config.fromfile('ncm.py')
    cfg.work_dir = 'work_dirs/ncm'
    runner = RUNNERS.build(cfg)
    runner.test()
    expected = reference(runner.model, pictures())[0]
    export(DeployedClassifier(runner.model), 'ncm.pt', 'torchscript', (32, 32))
    assert expected.any()
    assert (load_exported('ncm.pt', 'torchscript')(pictures())[0] - expected).abs().max() <= 1e-5


def test_text_tower_is_gone(tmp_path):
    config, weights = trained(tmp_path, 'text', VIT)
    result = export_tool.main([config, weights, '--format', 'torchscript', '--out', str(tmp_path / 'm.pt')])
    before, after = result['megabytes']
    assert after < 0.1 * before  # the tiny text tower's vocabulary is nine tenths of the model


def test_fixed_batch(tmp_path):
    config, weights = trained(tmp_path, 'linear', VIT)
    out = str(tmp_path / 'm.pt2')
    export_tool.main([config, weights, '--format', 'torch-export', '--out', out, '--batch', '4'])
    assert json.loads(Path(f'{out}.json').read_text())['input']['shape'] == [4, 3, 32, 32]
    run = load_exported(out, 'torch-export')
    assert run(pictures(4))[0].shape == (4, 3)
    with pytest.raises(Exception, match='4'):
        run(pictures(5))


def test_models_that_take_bgr():
    """A model whose preprocessor does not turn BGR to RGB: its graph takes RGB all the same."""
    model = built('linear', VIT, to_rgb=False)
    graph, expected = DeployedClassifier(model), reference(model, pictures())[1]
    assert (graph(pictures())[1] - expected).abs().max() <= 1e-6
    assert (graph(pictures().flip(1))[1] - expected).abs().max() > 1e-4


def test_models_of_arrays_in_rgb(tmp_path):
    """A data set that holds its pictures in RGB, whose preprocessor exchanges nothing: the graph doesn't either."""
    config, weights = trained(tmp_path, 'linear', VIT, to_rgb=False)
    export_tool.main([config, weights, '--format', 'torchscript', '--out', str(tmp_path / 'm.pt')])
    model = get_model(config, weights)
    expected = model(model.data_preprocessor(dict(inputs=pictures()))['inputs'], mode='tensor')
    exported = load_exported(str(tmp_path / 'm.pt'), 'torchscript')
    assert (exported(pictures())[0] - expected).abs().max() <= 1e-5


def test_how_pictures_are_read():
    plain = dict(type='LoadImageFromFile')
    assert exporting.picture_reading([dict(type='mmlt.LoadPicture')]) is READING
    assert 'LoadImageFromFile reads it; EXIF orientation is applied' in exporting.picture_reading([plain])
    unturned = dict(plain, color_type='color_ignore_orientation')
    assert 'EXIF orientation is ignored' in exporting.picture_reading([unturned])


def test_multi_label_has_independent_probabilities():
    logits, probabilities = DeployedClassifier(built('multi-label'))(pictures())
    assert torch.equal(probabilities, logits.sigmoid())


def test_padding_of_anchors_is_not_exported():
    graph = DeployedClassifier(built('knn'))
    assert graph.head.keys.shape == (9, 64) and graph.head.classes.tolist() == [0] * 3 + [1] + [2] * 5


def test_what_cannot_be_exported(tmp_path):
    with pytest.raises(InputError, match='Only an ImageClassifier can be exported, not a Linear'):
        plain_classifier(nn.Linear(1, 1))
    model = MODELS.build(model_config('linear', VIT, pad_size_divisor=32))
    with pytest.raises(InputError, match='pads its pictures'):
        DeployedClassifier(model)
    for kind, sentence in (
        ('lgr', 'LGRHead has no anchor sentences yet: train it with model.head.anchors=<file>, or load'),
        ('knn', 'AnchorKNNHead has no anchor sentences yet: train it with model.head.anchors=<file>, or load'),
        ('ncm', r"NCMHead has no class means yet: add dict\(type='mmlt.FitHeadHook'"),
        ('text', r'does not know the classes: add .* or give classes=\[...\] to the head'),
    ):
        with pytest.raises(InputError, match=sentence):
            DeployedClassifier(MODELS.build(model_config(kind)).eval())
    with pytest.raises(InputError, match="no export format 'caffe'; choose one of torchscript"):
        export(nn.Linear(1, 1), 'm', 'caffe', (32, 32))
    for form, path, sentence in (
        ('onnx', 'm.pt', r"onnx ends in \.onnx; 'm\.pt' does not"),
        ('torchscript', f'{tmp_path}/none/m.pt', r"The folder '.*/none' does not exist: make it, or write to another"),
        ('torchscript', f'{tmp_path}/m.pt', r"m\.pt' is a folder: give the name of a file"),
    ):
        (tmp_path / 'm.pt').mkdir(exist_ok=True)
        with pytest.raises(InputError, match=sentence):
            export(nn.Linear(1, 1), path, form, (32, 32))


def test_a_models_own_error_is_told_as_it_is(tmp_path):
    model = built('linear', VIT)
    model.neck = BalancedLinearAdapter(8)
    with pytest.raises(InputError, match='^BalancedLinearAdapter was built for features of width 8, but they are 64'):
        export(DeployedClassifier(model), str(tmp_path / 'm.pt'), 'torchscript', (32, 32))


def test_a_part_that_a_format_cannot_express(tmp_path):
    class Branching(nn.Conv2d):
        def forward(self, images):
            return super().forward(images if images.sum() > 0 else -images)

    with pytest.raises(InputError, match=r'The model could not be exported as torch-export \(\w+: '):
        export(Branching(3, 3, 1), str(tmp_path / 'm.pt2'), 'torch-export', (32, 32))


def test_wrong_input_of_the_tool(tmp_path):
    config, weights = trained(tmp_path, 'linear', VIT)
    (tmp_path / 'file').write_text('')
    folder = tmp_path / 'other'
    folder.mkdir()
    other_kind = trained(folder, 'ncm', VIT)[1]
    out = ['--format', 'torchscript', '--out', str(tmp_path / 'm.pt')]
    for checkpoint, arguments, sentence in (
        ('none.pth', [], "checkpoint 'none.pth' does not exist: give a file, for example the last of a work directory"),
        (config, [], r"config\.py' cannot be read: it is no file of weights"),
        (other_kind, [], "lacks 2 weights of this config's model, the first is 'head.fc.weight': give the config"),
        (weights, ['--cfg-options', 'model.head.num_classes=4'], 'trained with another backbone, width or class list'),
        (weights, ['--out', f'{tmp_path}/m.onnx'], r"torchscript ends in \.pt; '.*m\.onnx' does not"),
        (weights, ['--out', f'{tmp_path}/file/m.pt'], r"folder '.*file' cannot be made \(.+\): give another --out"),
        (weights, ['--time-batch', '0'], '--time-batch is 0; give a positive number'),
        (weights, ['--batch', 'many'], "--batch is 'many'; give a positive number, or 'dynamic'"),
        (weights, ['--image-size', '1', '2', '3'], 'give one or two positive numbers'),
        (weights, ['--image-size', '48'], 'takes pictures of 32 x 32, not 48 x 48'),
    ):
        with pytest.raises(SystemExit, match=sentence):
            export_tool.main([config, checkpoint, *out, *arguments])
    with pytest.raises(SystemExit, match=r"config\.py' needs a checkpoint: .* Give the last of its work directory"):
        export_tool.main([config, *out])
    assert not (tmp_path / 'm.pt').exists()


@pytest.mark.parametrize('kind', ['ncm', 'knn'])
def test_checkpoint_of_other_classes(tmp_path, kind):
    config, weights = trained(tmp_path, kind)
    out = ['--format', 'torchscript', '--out', str(tmp_path / 'm.pt')]
    with pytest.raises(SystemExit, match=r'size mismatch .*: it was trained with another backbone, width or class'):
        export_tool.main([config, weights, *out, '--cfg-options', 'model.head.num_classes=4'])


def test_an_export_that_differs_is_removed(tmp_path, monkeypatch):
    config, weights = trained(tmp_path, 'linear', VIT)
    monkeypatch.setattr(exporting, 'TOLERANCE', -1.0)
    out = tmp_path / 'm.pt'
    with pytest.raises(SystemExit, match='differ by .* it was removed'):
        export_tool.main([config, weights, '--format', 'torchscript', '--out', str(out)])
    assert not out.exists()


def test_missing_packages_are_named(monkeypatch, tmp_path):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, 'find_spec', lambda p, *a: None if p.startswith('onnx') else find(p, *a))
    with pytest.raises(InputError, match=r"needs onnx, onnxscript, onnxruntime: run pip install 'mmlt\[deploy\]'"):
        export(nn.Linear(1, 1), str(tmp_path / 'm.onnx'), 'onnx', (32, 32))


def test_times_are_taken_in_turns():
    calls = []
    functions = {name: lambda _, name=name: calls.append(name) for name in 'ab'}
    times = median_times(functions, pictures(1), rounds=3)
    assert set(times) == {'a', 'b'} and min(times.values()) >= 0
    assert calls == list('ab') * 5

"""Exported classifiers have the logits of the trained ones, in any batch, without a text tower."""

import importlib.util
import json
from pathlib import Path

import pytest
import torch
from mmpretrain.registry import MODELS
from torch import nn

from mmlt import InputError
from mmlt.apis import get_model
from mmlt.deploy import FORMATS, DeployedClassifier, export, load_exported, median_times, plain_classifier
from mmlt.models.text.anchors import Anchors

REPO = Path(__file__).parent.parent.parent
CLASSES = ['cat', 'dog', 'red fox']
WIDTH = {'mmlt-tiny-vit': 64, 'mmlt-tiny-rn': 128}
VIT, RN = WIDTH
HEADS = ('text', 'adapter', 'lgr', 'linear', 'ncm')
pytestmark = pytest.mark.filterwarnings('ignore:.*torch.jit:FutureWarning', 'ignore:.*torch.jit:DeprecationWarning')


@pytest.fixture(scope='module')
def export_tool():
    spec = importlib.util.spec_from_file_location('mmlt_export', REPO / 'tools/deployment/export.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def model_config(kind, name, **preprocessor):
    width = WIDTH[name]
    heads = dict(
        text=dict(type='mmlt.TextClsHead', text=dict(type='mmlt.OpenCLIPText', model=name), templates=['a {}', '{}']),
        lgr=dict(type='mmlt.LGRHead', num_classes=3, in_channels=width, fusion=0.3),
        linear=dict(type='LinearClsHead', num_classes=3, in_channels=width),
        ncm=dict(type='mmlt.NCMHead', num_classes=3, in_channels=width),
        knn=dict(type='mmlt.AnchorKNNHead', num_classes=3, in_channels=width),
    )
    cfg = dict(
        type='ImageClassifier',
        backbone=dict(type='mmlt.OpenCLIPVision', model=name),
        head=heads['text' if kind == 'adapter' else kind],
        data_preprocessor=dict(type='mmlt.CLIPDataPreprocessor', **preprocessor),
    )
    if kind == 'adapter':
        cfg['neck'] = dict(type='mmlt.BalancedLinearAdapter', in_channels=width)
    return cfg


def trained(tmp_path, kind, name=VIT, **preprocessor):
    """A config and a checkpoint with random weights, as a training leaves them."""
    cfg = model_config(kind, name, **preprocessor)
    model = MODELS.build(cfg)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
            nn.init.uniform_(module.weight, 0.5, 1.5)  # open_clip starts some at zero: all pictures would look alike
    if name == RN:
        model.backbone.visual.attnpool.c_proj.weight.data *= 20
    if kind in ('text', 'adapter', 'lgr', 'knn'):
        model.head.set_class_info(CLASSES)
    if kind in ('lgr', 'knn'):
        counts, width = [3, 1, 5], WIDTH[name]
        features = torch.randn(3, 5, width)
        for c, n in enumerate(counts):
            features[c, n:] = 0
        texts = [['a sentence'] * n for n in counts]
        model.head._take(Anchors(features, torch.tensor(counts), torch.zeros(3, 5), texts, 9.0))
    if kind == 'ncm':
        model.head.means.normal_()
    pipeline = [dict(type='Resize', scale=(32, 32)), dict(type='PackInputs')]
    (tmp_path / 'config.py').write_text(
        f'model = {cfg!r}\ntest_dataloader = dict(dataset=dict(type="mmlt.LongTailedDataset", ann_file="none.txt", '
        f'pipeline={pipeline!r}))\n'
    )
    torch.save(
        dict(meta=dict(dataset_meta=dict(classes=CLASSES)), state_dict=model.state_dict()), tmp_path / 'weights.pth'
    )
    return str(tmp_path / 'config.py'), str(tmp_path / 'weights.pth')


def pictures(number=5):
    """Random tiles of random colours."""
    tiles = torch.randint(0, 256, (number, 3, 4, 4), generator=torch.Generator().manual_seed(3))
    return tiles.repeat_interleave(8, 2).repeat_interleave(8, 3).float()


@torch.no_grad()
def reference(config, weights, images):
    """Probabilities as a test computes them: BGR pictures through the model's own preprocessor and head."""
    model = get_model(config, weights)
    data = model.data_preprocessor(dict(inputs=images.flip(1).to(torch.uint8)))
    return torch.stack([s.pred_score for s in model(data['inputs'], mode='predict')])


@pytest.mark.parametrize('name', [VIT, RN])
@pytest.mark.parametrize('kind', HEADS)
def test_graph_is_the_trained_model(tmp_path, kind, name):
    config, weights = trained(tmp_path, kind, name)
    graph = DeployedClassifier(get_model(config, weights))
    logits, probabilities = graph(pictures())
    expected = reference(config, weights, pictures())
    assert expected.std(0).max() > 1e-4  # pictures are told apart
    assert (probabilities - expected).abs().max() <= 5e-6
    assert (logits.softmax(-1) - probabilities).abs().max() == 0
    assert not any('clip' in key or 'text' in key for key in graph.state_dict())


@pytest.mark.parametrize(
    'kind, form', [*((kind, 'torchscript') for kind in HEADS), ('adapter', 'torch-export'), ('lgr', 'torch-export')]
)
def test_export_in_any_batch(tmp_path, export_tool, capsys, kind, form):
    config, weights = trained(tmp_path, kind, RN if form == 'torchscript' else VIT)
    out = str(tmp_path / 'out' / f'model{FORMATS[form]}')
    result = export_tool.main([config, weights, '--format', form, '--out', out, '--time-batch', '3'])
    assert result['difference'] <= 1e-4
    assert form in capsys.readouterr().out
    exported = load_exported(out, form)
    for number in (1, 5):
        logits, probabilities = exported(pictures(number))
        assert logits.shape == (number, 3)
        assert (probabilities - reference(config, weights, pictures(number))).abs().max() <= 1e-5
    about = json.loads(Path(f'{out}.json').read_text())
    assert about['classes'] == CLASSES
    assert about['input'] == dict(name='images', shape=['N', 3, 32, 32])
    assert about['test_pipeline'][0]['type'] == 'Resize'


def onnx_export(tmp_path, export_tool, kind, name):
    for package in ('onnx', 'onnxscript', 'onnxruntime'):
        pytest.importorskip(package)
    config, weights = trained(tmp_path, kind, name)
    out = str(tmp_path / 'model.onnx')
    assert export_tool.main([config, weights, '--out', out, '--time-batch', '3'])['difference'] <= 1e-4
    assert not Path(f'{out}.data').exists()  # one file
    run = load_exported(out, 'onnx')
    for number in (1, 5):
        probabilities = run(pictures(number))[1]
        assert (probabilities - reference(config, weights, pictures(number))).abs().max() <= 1e-5


@pytest.mark.parametrize('kind', ['adapter', 'lgr'])
def test_onnx(tmp_path, export_tool, kind):
    onnx_export(tmp_path, export_tool, kind, VIT)


@pytest.mark.slow
@pytest.mark.parametrize('kind', HEADS)
def test_onnx_of_a_resnet(tmp_path, export_tool, kind):
    onnx_export(tmp_path, export_tool, kind, RN)


def test_text_tower_is_gone(tmp_path, export_tool):
    config, weights = trained(tmp_path, 'text')
    result = export_tool.main([config, weights, '--format', 'torchscript', '--out', str(tmp_path / 'm.pt')])
    before, after = result['megabytes']
    assert after < 0.1 * before  # the tiny text tower's vocabulary is nine tenths of the model


def test_fixed_batch(tmp_path, export_tool):
    config, weights = trained(tmp_path, 'linear')
    out = str(tmp_path / 'm.pt2')
    export_tool.main([config, weights, '--format', 'torch-export', '--out', out, '--batch', '4'])
    assert json.loads(Path(f'{out}.json').read_text())['input']['shape'] == [4, 3, 32, 32]
    run = load_exported(out, 'torch-export')
    assert run(pictures(4))[0].shape == (4, 3)
    with pytest.raises(Exception, match='4'):
        run(pictures(5))


def test_models_that_take_bgr(tmp_path):
    """A model whose preprocessor does not turn BGR to RGB: its graph takes RGB all the same."""
    config, weights = trained(tmp_path, 'linear', to_rgb=False)
    graph = DeployedClassifier(get_model(config, weights))
    expected = reference(config, weights, pictures())
    assert (graph(pictures())[1] - expected).abs().max() <= 1e-6
    assert (graph(pictures().flip(1))[1] - expected).abs().max() > 1e-4


def test_multi_label_has_independent_probabilities():
    head = dict(type='MultiLabelLinearClsHead', num_classes=3, in_channels=64)
    model = MODELS.build({**model_config('linear', VIT), 'head': head}).eval()
    logits, probabilities = DeployedClassifier(model)(pictures())
    assert torch.equal(probabilities, logits.sigmoid())


def test_low_rank_weights_are_merged():
    model = MODELS.build(dict(type='mmlt.MORE', classifier=model_config('adapter', VIT), peak=0.0))
    model.head.set_class_info(CLASSES)
    for name, parameter in model.named_parameters():
        if name.endswith('.B'):
            nn.init.normal_(parameter, std=0.1)
    model.eval()
    with torch.no_grad():
        expected = model(model.data_preprocessor(dict(inputs=pictures().flip(1)))['inputs'])
    graph = DeployedClassifier(model)
    assert (graph(pictures())[0] - expected).abs().max() <= 1e-4
    assert not any('parametrizations' in name for name in graph.state_dict())
    assert type(plain_classifier(model)).__name__ == 'ImageClassifier'


def test_what_cannot_be_exported(tmp_path, export_tool):
    with pytest.raises(InputError, match='Only an ImageClassifier can be exported, not a Linear'):
        plain_classifier(nn.Linear(1, 1))
    model = MODELS.build(model_config('linear', VIT, pad_size_divisor=32))
    with pytest.raises(InputError, match='pads its pictures'):
        DeployedClassifier(model)
    model = MODELS.build(model_config('lgr', VIT))
    with pytest.raises(InputError, match='has no anchor sentences yet'):
        DeployedClassifier(model)
    with pytest.raises(InputError, match="no export format 'caffe'; choose one of torchscript"):
        export(nn.Linear(1, 1), 'm', 'caffe', (32, 32))
    with pytest.raises(InputError, match=r"onnx ends in \.onnx; 'm\.pt' does not"):
        export(nn.Linear(1, 1), 'm.pt', 'onnx', (32, 32))
    config, weights = trained(tmp_path, 'linear')
    out = ['--format', 'torchscript', '--out', str(tmp_path / 'm.pt')]
    for arguments, sentence in (
        (['--batch', 'many'], "--batch is 'many'; give a positive number, or 'dynamic'"),
        (['--image-size', '1', '2', '3'], 'give one or two positive numbers'),
        (['--image-size', '48'], r'takes pictures of 32 x 32, not 48 x 48'),
    ):
        with pytest.raises(SystemExit, match=sentence):
            export_tool.main([config, weights, *out, *arguments])


def test_an_export_that_differs_is_removed(tmp_path, export_tool, monkeypatch):
    config, weights = trained(tmp_path, 'linear')
    monkeypatch.setattr(export_tool, 'TOLERANCE', -1.0)
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

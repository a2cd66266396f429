"""LIFT on timm's Vision Transformers in the formats of export."""

import json
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.utils import digit_version
from mmpretrain.registry import MODELS

from mmlt.apis import get_model
from mmlt.checkpoints.export import FORMATS, export, load_exported
from mmlt.cli import export as export_tool
from mmlt.models.deployed import DeployedClassifier

REG, DINO3, SIGLIP = 'vit_small_patch14_reg4_dinov2', 'vit_small_patch16_dinov3', 'vit_base_patch16_siglip_224'
SIZE = {REG: 28, DINO3: 32, SIGLIP: 32}
TINY = dict(depth=2, embed_dim=48, num_heads=3)
pytestmark = pytest.mark.filterwarnings('ignore:.*torch.jit:FutureWarning', 'ignore:.*torch.jit:DeprecationWarning')


def lift_model(name):
    """A classifier of LIFT as a training leaves it."""
    model = MODELS.build(
        dict(
            type='ImageClassifier',
            backbone=dict(
                type='mmlt.TimmViT',
                model=name,
                image_size=SIZE[name],
                options=TINY,
                adapter=dict(type='mmlt.AdaptFormer', bottleneck=3),
            ),
            head=dict(type='mmlt.CosineClsHead', num_classes=3, in_channels=48, init='class_means'),
            data_preprocessor=dict(type='mmlt.CLIPDataPreprocessor'),
        )
    )
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return model.eval()


@pytest.mark.parametrize('form', FORMATS)
@pytest.mark.parametrize('name', [REG, DINO3, SIGLIP])
def test_export(name, form, tmp_path):
    if form != 'torchscript' and digit_version(torch.__version__) < digit_version('2.7'):
        pytest.skip('its export does not follow what adapters keep of a block for the next part of it')
    if form == 'onnx':
        for package in ('onnx', 'onnxruntime', 'onnxscript'):
            pytest.importorskip(package)
    model, size, path = lift_model(name), SIZE[name], str(tmp_path / f'model{FORMATS[form]}')
    graph = DeployedClassifier(model)
    export(graph, path, form, (size, size))
    exported = load_exported(path, form)
    for number in (1, 5):
        pictures = torch.randint(0, 256, (number, 3, size, size)).float()
        with torch.no_grad():
            inputs = model.data_preprocessor(dict(inputs=pictures.flip(1).to(torch.uint8)))['inputs']
            expected = model(inputs, mode='tensor')
            assert (graph(pictures)[0] - expected).abs().max() <= 1e-4
            logits, probabilities = exported(pictures)
        assert logits.shape == (number, 3) and (logits - expected).abs().max() <= 1e-4
        assert (probabilities - expected.softmax(-1)).abs().max() <= 1e-5
        assert number == 1 or expected.std(0).max() > 1e-2  # pictures are told apart


@pytest.fixture
def trained(tmp_path, repo):
    """The tiny config of LIFT on DINOv2's form, and a checkpoint of it."""
    cfg = Config.fromfile(repo / 'configs/lift/lift_tiny-dinov2_mnist-lt.py')
    model = MODELS.build(cfg.model)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    meta = dict(dataset_meta=dict(classes=[str(i) for i in range(10)]))
    torch.save(dict(meta=meta, state_dict=model.state_dict()), tmp_path / 'weights.pth')
    return cfg.filename, str(tmp_path / 'weights.pth')


@pytest.mark.parametrize('size', [None, 48])
@pytest.mark.parametrize('form', ['torchscript', 'onnx'])
def test_export_as_it_is_called(trained, form, size, tmp_path):
    """A tower that takes images of any size is exported for the one that is asked for."""
    if form == 'onnx':
        pytest.importorskip('onnxruntime')
    out = str(tmp_path / f'model{FORMATS[form]}')
    options = [] if size is None else ['--image-size', str(size), '--cfg-options', 'model.backbone.dynamic=True']
    result = export_tool.main([*trained, '--format', form, '--out', out, '--time-batch', '2', *options])
    assert result['difference'] <= 1e-4
    side = size or 32
    assert json.loads(Path(f'{out}.json').read_text())['input']['shape'] == ['N', 3, side, side]
    model = get_model(*trained, cfg_options={'model.backbone.dynamic': size is not None})
    pictures = torch.randint(0, 256, (3, 3, side, side)).float()
    inputs = model.data_preprocessor(dict(inputs=pictures))['inputs']  # digits are grey, of no order of channels
    with torch.no_grad():
        expected = model(inputs, mode='tensor')
    logits, _ = load_exported(out, form)(pictures)
    assert logits.shape == (3, 10) and (logits - expected).abs().max() <= 1e-4 and expected.std(0).max() > 1e-2


def test_sizes_that_are_not_exported(trained, tmp_path):
    out = ['--format', 'torchscript', '--out', str(tmp_path / 'm.pt'), '--image-size']
    with pytest.raises(SystemExit, match='takes pictures of 32 x 32, not 48 x 48: .* Leave out --image-size'):
        export_tool.main([*trained, *out, '48'])
    with pytest.raises(SystemExit, match='50 x 50 are not filled by the patches of 4 pixels .* such as 48 or 52'):
        export_tool.main([*trained, *out, '50', '--cfg-options', 'model.backbone.dynamic=True'])

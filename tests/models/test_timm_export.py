"""LIFT on timm's Vision Transformers in the formats of export."""

import pytest
import torch
from mmengine.utils import digit_version
from mmpretrain.registry import MODELS

from mmlt.checkpoints.export import FORMATS, export, load_exported
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

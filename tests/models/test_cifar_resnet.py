import pytest
import torch
from torch import nn

from mmlt.errors import InputError
from mmlt.models import CIFARResNet


@pytest.mark.parametrize(('depth', 'millions'), [(20, 0.27), (32, 0.46), (44, 0.66), (56, 0.85), (110, 1.73)])
def test_sizes_of_the_paper(depth, millions):
    """He et al. 2016, Table 6, with the classifier of CIFAR-10."""
    net = CIFARResNet(depth)
    layers = [m for m in net.modules() if isinstance(m, nn.Conv2d)]
    assert len(layers) + 1 == depth
    assert sum(p.numel() for p in net.parameters()) + 650 == pytest.approx(millions * 1e6, rel=0.02)


def test_feature_map():
    net = CIFARResNet(20)
    (out,) = net(torch.randn(2, 3, 32, 32))
    assert out.shape == (2, 64, 8, 8) and net.out_channels == 64
    assert CIFARResNet(8, base_channels=4, in_channels=1)(torch.randn(2, 1, 16, 16))[0].shape == (2, 16, 4, 4)


def test_shortcut_is_option_a():
    """With zero convolutions a block passes every other pixel on, and zeros in the new channels."""
    net = CIFARResNet(8)
    net.eval()
    block = net.blocks[1]
    nn.init.zeros_(block.conv2.weight)
    x = torch.rand(2, 16, 8, 8)
    out = block(x)
    assert out.shape == (2, 32, 4, 4)
    assert torch.equal(out[:, 8:24], x[:, :, ::2, ::2])
    assert not out[:, :8].any() and not out[:, 24:].any()


def test_initialisation():
    torch.manual_seed(0)
    net = CIFARResNet(20)
    net.init_weights()
    weight = net.blocks[-1].conv2.weight
    assert weight.std().item() == pytest.approx((2 / (64 * 9)) ** 0.5, rel=0.03)  # fan-out


@pytest.mark.parametrize('depth', [18, 33, 2, 101])
def test_other_depths_are_named(depth):
    with pytest.raises(InputError, match=f'6n . 2 layers .*not {depth}'):
        CIFARResNet(depth)

"""Computed memory: what is counted without numbers is what autograd keeps on the CPU."""

import pytest
import torch
from torch import nn

from mmlt.benchmarks import memory as measured_memory


@pytest.fixture(scope='module')
def memory():
    return measured_memory


@pytest.mark.parametrize('model', ['mmlt-tiny-vit', 'mmlt-tiny-rn'])
def test_computed_activations_are_those_of_the_cpu(memory, model):
    computed, measured = memory.count(model, 4), memory.count(model, 4, 'cpu')
    assert computed.parameters == measured.parameters and computed.units == measured.units
    # Numbers of twice the width, but for the indices and sums that have one width in both.
    assert measured.activations == pytest.approx(2 * computed.activations, rel=0.04)
    assert measured.recomputed == pytest.approx(2 * computed.recomputed, rel=0.04)
    assert computed.recomputed < computed.activations


def test_every_storage_is_counted_once_and_for_its_block(memory):
    model = nn.Module()
    model.blocks = nn.Sequential(*(nn.Sequential(nn.Linear(4, 8), nn.Sigmoid()) for _ in range(1)))
    x = torch.zeros(5, 4, requires_grad=True)
    with memory.Kept(model) as kept:
        y = model.blocks(x)  # keeps x and its own output
        (y * y).sum()  # keeps y, which is there
    assert kept.kept == {kept.units[0]: 4 * (5 * 4 + 5 * 8)} and kept.inputs[kept.units[0]] == 4 * 5 * 4


def test_formulas(memory):
    """A model of two blocks of 100 parameters, one with running statistics, and 50 beside."""
    facts = memory.Facts(parameters=250, units=[(100, True), (100, False)], activations=0, recomputed=0)
    assert memory.ddp(facts) == 22 * 250
    # A half; 50 whole, with gradients and copies; both gathered in 2 and 4 bytes; gradients in 4, sent in 4.
    assert memory.fsdp(facts, 2) == 16 * 125 + 10 * 50 + (200 + 400) + 400 + 400


def test_table(memory):
    table = memory.markdown(memory.rows(['mmlt-tiny-vit'], 4, [2, 8]))
    lines = table.splitlines()
    assert len(lines) == 3 and lines[0].count('|') == lines[2].count('|') == 11
    assert lines[2].startswith('| mmlt-tiny-vit | 3 M |')

"""docs/compositions.md says what the tests of compositions show."""

import re
from itertools import combinations

import pytest
import torch
from mmengine.registry import HOOKS
from mmengine.registry import MODELS as ROOT
from mmpretrain.registry import MODELS

from mmlt import InputError
from tests.test_compositions import LOSSES, PARTS, REFUSED, anchors, changed, config, start, tell

__all__ = ['anchors', 'config']  # fixtures


@pytest.fixture
def page(repo):
    return (repo / 'docs' / 'compositions.md').read_text(encoding='utf-8')


def cells(line):
    return [cell.strip().strip('*') for cell in line.strip().strip('|').split('|')]


def test_the_pairs_are_those_that_are_tested(page):
    rows = re.findall(r'^\| ([\w -]+) \+ ([\w -]+) \| (yes|no) \| (.+) \|$', page, re.M)
    assert [(a, b, verdict == 'yes') for a, b, verdict, _ in rows] == [
        (*pair, pair not in REFUSED) for pair in combinations(PARTS, 2)
    ]
    assert all(len(clause) > 10 for *_, clause in rows)


def test_the_grid_says_the_same(page):
    lines = page[page.index('| | LGR |') :].split('\n\n')[0].splitlines()
    head, rows = cells(lines[0])[1:], [cells(line) for line in lines[2:]]
    assert head == list(PARTS[1:]) and [row[0] for row in rows] == list(PARTS[:-1])
    marks = {(row[0], name): mark for row in rows for name, mark in zip(head, row[1:]) if mark}
    assert marks == {pair: '✗' if pair in REFUSED else '✓' for pair in combinations(PARTS, 2)}


def test_every_part_has_a_place_in_a_config(page):
    lines = page[page.index('| part | in a config |') :].split('\n\n')[0].splitlines()[2:]
    rows = [cells(line) for line in lines]
    assert [part for names, _ in rows for part in names.split(', ')] == list(PARTS)
    registries = [one for root in (ROOT, HOOKS) for one in (root, *root.children.values())]
    known = {name for registry in registries for name in registry.module_dict}
    for _, place in rows:
        named = re.findall(r"'(?:mmlt\.)?(\w+)'", place) + re.findall(r'`mmlt\.(\w+)`', place)
        assert set(named) <= known, set(named) - known


def test_a_loss_leaves_nothing_in_a_checkpoint(config):
    """So models of this loss and of others merge, also those of CUE."""
    names = {part: list(start(config(part)).state_dict()) for part in (*LOSSES, 'CUE')}
    assert len({tuple(keys) for keys in names.values()}) == 1
    assert not any('loss' in key for key in names['CUE'])


def test_what_a_neck_makes_of_features_is_not_looked_at(config):
    """It may lead from one space to the other; without it the same two parts are refused."""
    cfg = changed(config('LIFT'), backbone__projection=True)
    with pytest.raises(InputError, match='but model.backbone projects its features'):
        tell(MODELS.build(cfg))
    tell(MODELS.build(dict(cfg, neck=dict(type='mmlt.BalancedLinearAdapter', in_channels=64))))


def test_the_penalty_of_scaled_cosines_weighs_as_the_scale_squared(config):
    """LIFT's head multiplies by 25, and MORE's penalty is of what comes out: 625 times that of plain cosines."""
    penalties = {}
    for scale in (1.0, 25.0):
        cfg = config('LIFT', 'MORE')
        cfg['classifier']['head']['logit_scale'] = scale
        torch.manual_seed(3)
        model = start(cfg)
        images = torch.randn(7, 3, 32, 32, generator=torch.Generator().manual_seed(1))
        with torch.no_grad():
            full, general = model(images), model._general_logits(images)
        penalties[scale] = (full - general).square().sum().item()
    assert penalties[25.0] == pytest.approx(625 * penalties[1.0], rel=1e-3)

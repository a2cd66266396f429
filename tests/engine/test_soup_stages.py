"""LT-Soups as stages, in a form of two epochs: which data each sees, what is merged, and what is trained afterwards."""

import json
from types import SimpleNamespace

import open_clip
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import HOOKS
from safetensors.torch import save_file

from mmlt import InputError
from mmlt.apis.merging import Validation
from mmlt.checkpoints import read_checkpoint
from mmlt.engine import SoupHook
from mmlt.engine.hooks.soup import model_of
from mmlt.engine.stages import RunRecord

pytest.importorskip('mlxtend', reason="pip install 'mmlt[demo]'")
FACTORS = (1, 4, 64)
RATIO = 0.6


@pytest.fixture(scope='module')
def folder(tmp_path_factory, repo, train_tool):
    """soups.py has been trained: three subsets of two epochs each, and the head for two epochs."""
    path = tmp_path_factory.mktemp('soups')
    torch.manual_seed(20)
    clip = open_clip.create_model('mmlt-tiny-vit-p4')
    save_file({k: v.contiguous() for k, v in clip.state_dict().items()}, str(path / 'clip.safetensors'))
    weights = f"pretrained='{path}/clip.safetensors'"
    for name, base in (('subset', '_subset'), ('soups', '')):
        (path / f'{name}.py').write_text(
            f"_base_ = ['{repo}/configs/lift/lt-soups_tiny-vit_mnist-lt{base}.py']\n"
            f'model = dict(backbone=dict({weights}), head=dict(text=dict({weights})))\n'
            'train_cfg = dict(max_epochs=2)\n'
            'train_dataloader = dict(num_workers=0)\nval_dataloader = dict(num_workers=0)\n'
            'test_dataloader = dict(num_workers=0)\nstages = dict(_delete_=True)\n'
        )
    with open(path / 'soups.py', 'a') as file:
        file.write(f"""
stages.update({{
    f'imbalance_{{n}}': dict(config='subset.py', options=dict(train_dataloader=dict(dataset=dict(max_imbalance=n))))
    for n in {FACTORS}
}})
default_hooks = dict(soup=dict(ratio={RATIO}, groups=[[f'{{{{stage:imbalance_{{n}}}}}}'] for n in {FACTORS}]))
""")
    train_tool.main([str(path / 'soups.py'), '--work-dir', str(path / 'w')])
    return path


def result(folder) -> dict:
    return read_checkpoint(RunRecord(str(folder)).result)


def test_every_stage_sees_its_subset(folder):
    whole = (400, 239, 143, 86, 51, 30, 18, 11, 6, 4)
    for n in FACTORS:
        counts = result(folder / f'w/imbalance_{n}')['meta']['dataset_meta']['class_counts']
        assert list(counts) == [min(count, 4 * n) for count in whole]
    assert tuple(result(folder / 'w')['meta']['dataset_meta']['class_counts']) == whole


def test_merged_is_the_naive_recursion(folder):
    """In float64, from what the config begins with, over the results of the stages."""
    soup = read_checkpoint(str(folder / 'w/soup.pth'))
    validation = Validation(str(folder / 'soups.py'), str(folder / 'v'), on_test=True)
    running = {k: v.double() for k, v in validation.pretrained().items()}
    stages = [result(folder / f'w/imbalance_{n}')['state_dict'] for n in FACTORS]
    for state in stages:
        running = {k: (1 - RATIO) * v + RATIO * state[k].double() for k, v in running.items()}
    changed = 0
    for key, value in soup['state_dict'].items():
        if value.is_floating_point():
            torch.testing.assert_close(value.double(), running[key], rtol=1e-6, atol=1e-7)
            changed += not torch.equal(value, stages[-1][key])
    assert changed > 20
    shares = list(soup['meta']['merged'].values())
    assert shares == pytest.approx([0.4**3, 0.6 * 0.4**2, 0.6 * 0.4, 0.6])
    assert validation.report(soup['state_dict'], 'soup')['num_samples'] == 1000


def test_only_the_head_is_trained_on_all(folder):
    soup = read_checkpoint(str(folder / 'w/soup.pth'))['state_dict']
    state = result(folder / 'w')['state_dict']
    assert state.keys() == soup.keys()
    assert {k for k in soup if not torch.equal(soup[k], state[k])} == {'head.weight'}


def test_finished_stages_are_not_trained_again(folder, train_tool, capsys):
    train_tool.main([str(folder / 'soups.py'), '--work-dir', str(folder / 'w')])
    assert capsys.readouterr().out.count('already finished') == 4
    assert json.loads((folder / 'w/run.json').read_text())['finished']


def test_averaged_weights_have_the_decay_of_the_published_code(repo):
    """0.99 a step, from the weights after the first one; number by number in float64."""
    cfg = Config.fromfile(repo / 'configs/lift/lt-soups_vit-b16_imagenet-lt_subset.py')
    (hook,) = (HOOKS.build(hook) for hook in cfg.custom_hooks)
    model = torch.nn.Linear(3, 2).double()
    runner, generator = SimpleNamespace(model=model, iter=0, epoch=0), torch.Generator().manual_seed(1)
    hook.before_run(runner)
    expected = None
    for step in range(6):
        runner.iter = step
        with torch.no_grad():
            model.weight.copy_(torch.randn(2, 3, generator=generator))
        hook.after_train_iter(runner, step)
        now = model.weight.flatten().tolist()
        expected = now if expected is None else [0.99 * a + 0.01 * w for a, w in zip(expected, now)]
    assert hook.ema_model.module.weight.flatten().tolist() == pytest.approx(expected, rel=1e-12)


def test_a_resumed_training_merges_nothing(monkeypatch):
    merged = []

    def merge(hook, runner, anchor):
        merged.append(runner.iter)
        raise InputError('merged')

    monkeypatch.setattr(SoupHook, 'merge', merge)
    hook, model = SoupHook([['nowhere']]), torch.nn.Linear(1, 1)
    hook.before_train(SimpleNamespace(iter=3, model=model))
    assert not merged
    with pytest.raises(InputError, match='merged'):
        hook.before_train(SimpleNamespace(iter=0, model=model))
    assert merged == [0]


@pytest.mark.parametrize(
    'arguments, sentence',
    [
        (dict(groups=[]), "SoupHook's groups are lists"),
        (dict(groups=['a', 'b']), "SoupHook's groups are lists"),
        (dict(groups=[['a'], []]), "SoupHook's groups are lists"),
        (dict(groups=[['a']], ratio=0), "SoupHook's ratio is 0; give a number above 0, at most 1"),
        (dict(groups=[['a']], ratio=1.5), "SoupHook's ratio is 1.5"),
    ],
)
def test_settings_that_cannot_be(arguments, sentence):
    with pytest.raises(InputError, match=sentence):
        SoupHook(**arguments)


def test_a_stage_that_is_not_finished(tmp_path):
    with pytest.raises(InputError, match='where no training is finished: train it first'):
        model_of(str(tmp_path))

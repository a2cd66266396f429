"""merge_checkpoints.py as it is called: soups, the choice on validation data, and what is refused."""

import json
from pathlib import Path

import pytest
import torch
from mmpretrain.registry import MODELS

from mmlt.apis.merging import Validation
from mmlt.checkpoints import read_checkpoint
from mmlt.checkpoints.merging import average, interpolate, lt_soups
from mmlt.cli import merge as tool
from mmlt.engine.configs import read_config
from mmlt.utils.class_info import ClassInfo

NAMES = ('apple', 'pear', 'plum')


def save(model, cfg, path, steps=5) -> dict:
    """As a training leaves it."""
    meta = dict(epoch=3, cfg=cfg.pretty_text, dataset_meta=dict(classes=NAMES), seed=4)
    state = {k: v.clone() for k, v in model.state_dict().items()}
    if 'head.steps' in state:
        state['head.steps'] = torch.tensor(steps)
    torch.save(dict(meta=meta, state_dict=state, optimizer=dict(state={})), path)
    return state


@pytest.fixture
def files(two_stages):
    """zero.pth, a.pth and b.pth near it, and bad.pth far off; val.py validates on val.txt."""
    train = (two_stages / 'train.txt').read_text()
    (two_stages / 'val.txt').write_text(train)
    (two_stages / 'val.py').write_text(
        "_base_ = ['./a.py']\nval_dataloader = dict(dataset=dict(ann_file='val.txt'))\n"
        'default_hooks = dict(visualization=None)\n'
    )
    cfg = read_config('val.py')
    model = MODELS.build(cfg.model)
    (model if hasattr(model, 'set_class_info') else model.head).set_class_info(ClassInfo(NAMES))
    model.init_weights()
    states = dict(zero=save(model, cfg, 'zero.pth'))
    for name, seed, size in (('a', 1, 0.02), ('b', 2, 0.02), ('bad', 3, 3.0)):
        torch.manual_seed(seed)
        model.load_state_dict(states['zero'])
        for parameter in model.parameters():
            parameter.data += size * torch.randn_like(parameter)
        states[name] = save(model, cfg, f'{name}.pth', steps=seed)
    return states


def weights_of(path) -> dict:
    return read_checkpoint(path)['state_dict']


def same(one, other) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)


def test_uniform(files, capsys):
    tool.main(['a.pth', 'b.pth', '--out', 'out/soup.pth'])
    content = read_checkpoint('out/soup.pth')
    assert set(content) == {'meta', 'state_dict'}
    assert same(content['state_dict'], average({'a': files['a'], 'b': files['b']}).state)
    meta = content['meta']
    assert meta['merged'] == dict(weights={'a.pth': 0.5, 'b.pth': 0.5}, way='uniform')
    assert tuple(meta['dataset_meta']['classes']) == NAMES and 'ImageClassifier' in meta['cfg']
    assert not {'epoch', 'seed'} & set(meta)  # no training made it
    out = capsys.readouterr().out
    assert '0.500 a.pth, 0.500 b.pth' in out and "1 counter differs and is that of 'a.pth': head.steps" in out
    assert not list(Path('out').glob('*.part'))


def test_weights(files):
    tool.main(['a.pth', 'b.pth', '--out', 'soup.pth', '--weights', '3', '1'])
    content = read_checkpoint('soup.pth')
    assert same(content['state_dict'], average({'a': files['a'], 'b': files['b']}, [3, 1]).state)
    assert content['meta']['merged'] == dict(weights={'a.pth': 0.75, 'b.pth': 0.25}, way='weighted')


def test_recursion(files):
    tool.main(['a.pth', 'b.pth', '--out', 'soup.pth', '--lt-soups', 'zero.pth', '--ratio', '0.3'])
    content = read_checkpoint('soup.pth')
    assert same(content['state_dict'], lt_soups(files['zero'], [{'a': files['a']}, {'b': files['b']}], 0.3).state)
    shares = content['meta']['merged']['weights']
    assert list(shares) == ['zero.pth', 'a.pth', 'b.pth'] and list(shares.values()) == pytest.approx([0.49, 0.21, 0.3])


def test_one_alpha_needs_no_validation(files):
    tool.main(['a.pth', '--out', 'wise.pth', '--wise-ft', 'zero.pth', '--alphas', '0.5'])
    assert same(weights_of('wise.pth'), interpolate(files['zero'], files['a'], 0.5).state)
    assert not Path('wise_merging').exists()


def test_greedy_is_at_least_the_best_single(files, capsys, test_tool):
    tool.main(['bad.pth', 'a.pth', 'b.pth', '--out', 'soup.pth', '--greedy', 'val.py'])
    merged = read_checkpoint('soup.pth')['meta']['merged']
    assert merged['way'] == 'greedy' and merged['chosen_on'] == 'validation' and merged['figure'] == 'all'
    # The same figures as tools/test.py has of the same files on the same pictures.
    scores = {}
    for name in ('a', 'b', 'bad', 'soup'):
        options = ['test_dataloader.dataset.ann_file=val.txt']
        metrics = test_tool.main(['val.py', f'{name}.pth', '--cfg-options', *options, '--work-dir', 'test'])
        scores[name] = metrics['shot/all']
    assert merged['score'] == pytest.approx(scores['soup'], abs=1e-4)
    assert scores['soup'] >= max(scores[name] for name in ('a', 'b', 'bad')) - 1e-4
    out = capsys.readouterr().out
    assert 'many' in out and 'of 3: ' in out


def test_sweep_chooses_on_validation(files, capsys):
    arguments = ['a.pth', '--out', 'wise.pth', '--wise-ft', 'zero.pth', '--alphas', '0:1:0.25']
    tool.main([*arguments, '--config', 'val.py'])
    out = capsys.readouterr().out
    found = json.loads(Path('wise_merging/sweep.json').read_text())
    assert found['alphas'] == [0, 0.25, 0.5, 0.75, 1]
    scores = [report['metrics']['all'] for report in found['reports']]
    assert found['chosen'] == found['alphas'][scores.index(max(scores))]
    assert {report['num_samples'] for report in found['reports']} == {10}  # the pictures of val.txt
    assert same(weights_of('wise.pth'), interpolate(files['zero'], files['a'], found['chosen']).state)
    merged = read_checkpoint('wise.pth')['meta']['merged']
    assert merged['alpha'] == found['chosen'] and merged['score'] == max(scores)
    assert sum(merged['weights'].values()) == pytest.approx(1)
    assert Path('wise_merging/sweep.png').stat().st_size > 5000
    assert f'alpha {found["chosen"]:g} is the best of 5 on validation' in out and 'alpha 0.75' in out
    for key in ('many', 'medium', 'few'):
        assert key in out


@pytest.mark.parametrize('way', [['--greedy', 'val.py'], ['--wise-ft', 'a.pth', '--config', 'val.py']])
def test_of_some_figures_less_is_better(files, way, capsys):
    validation = Validation('val.py', 'single')
    singles = [validation.report(files[name], name)['metrics']['nll'] for name in ('a', 'bad')]
    tool.main([*(['a.pth'] if '--greedy' in way else []), 'bad.pth', '--out', 'soup.pth', '--figure', 'nll', *way])
    merged = read_checkpoint('soup.pth')['meta']['merged']
    assert 0 < merged['score'] <= min(singles) < max(singles)
    assert merged['figure'] == 'nll' and f'nll {merged["score"]:.2f}' in capsys.readouterr().out


def test_the_models_own_beginning(files):
    """What the config begins with is the checkpoint of the zero-shot model, bit by bit."""
    for config in ('val.py', 'a.py'):  # one alpha chooses nothing, so no validation set is needed
        tool.main(['a.pth', '--out', 'wise.pth', '--wise-ft', 'pretrained', '--config', config, '--alphas', '0'])
        state = weights_of('wise.pth')
        assert all(torch.equal(v, files['zero'][k]) for k, v in state.items() if k != 'head.steps')


def test_split_weights_of_more_are_merged_and_tested_as_plain_ones(files, capsys):
    """Of a config of MORE the plain model is taken, and its checkpoints may be mixed with plain ones."""
    Path('more.py').write_text(
        "_base_ = ['./val.py']\nmodel = dict(_delete_=True, type='mmlt.MORE', classifier={{_base_.model}})\n"
    )
    cfg = read_config('more.py')
    model = MODELS.build(cfg.model)
    model.head.set_class_info(ClassInfo(NAMES))
    model.init_weights()
    torch.manual_seed(5)
    for parameter in model.parameters():
        parameter.data += 0.02 * torch.randn_like(parameter)
    split = save(model, cfg, 'more.pth')
    assert any('parametrizations' in key for key in split)
    tool.main(['a.pth', 'more.pth', '--out', 'soup.pth', '--greedy', 'more.py'])
    merged = read_checkpoint('soup.pth')
    assert set(merged['state_dict']) == set(files['a']) and 'MORE' not in merged['meta']['cfg']
    tool.main(['a.pth', 'more.pth', '--out', 'mean.pth'])
    assert same(weights_of('mean.pth'), average({'a': files['a'], 'more': split}).state)


def test_on_test_is_told(files, capsys):
    arguments = ['a.pth', '--out', 'wise.pth', '--wise-ft', 'zero.pth', '--alphas', '0:1:0.5', '--config', 'a.py']
    with pytest.raises(SystemExit, match="'a.py' validates on its test set, and nothing is chosen on.*--on-test"):
        tool.main(arguments)
    assert not Path('wise.pth').exists()
    tool.main([*arguments, '--on-test'])
    assert 'chosen on the TEST set' in capsys.readouterr().out
    merged = read_checkpoint('wise.pth')['meta']['merged']
    assert merged['chosen_on'] == 'the TEST set'
    found = json.loads(Path('wise_merging/sweep.json').read_text())
    assert {report['num_samples'] for report in found['reports']} == {6}


def change(name, edit):
    content = read_checkpoint(name)
    edit(content)
    torch.save(content, 'changed.pth')


def drop_validation(files):
    (Path('none.py')).write_text("_base_ = ['./a.py']\nval_dataloader = val_cfg = val_evaluator = None\n")


def other_config(files):
    Path('other.py').write_text(
        "_base_ = ['./val.py']\nmodel = dict(neck=dict(type='mmlt.BalancedLinearAdapter', in_channels=64))\n"
    )


def other_classes(files):
    change('b.pth', lambda c: c['meta'].update(dataset_meta=dict(classes=('apple', 'plum', 'pear'))))


def other_shape(files):
    change('b.pth', lambda c: c['state_dict'].update({'head.text.clip.ln_final.bias': torch.zeros(3)}))


def nan(files):
    change('b.pth', lambda c: c['state_dict']['backbone.visual.ln_post.bias'].fill_(float('nan')))


def no_state(files):
    change('b.pth', lambda c: c.pop('state_dict'))


def other_model(files):
    change('b.pth', lambda c: c['meta'].update(cfg=c['meta']['cfg'].replace('20.0', '30.0')))


@pytest.mark.parametrize(
    'prepare, arguments, sentence',
    [
        (None, ['a.pth', 'no.pth'], "'no.pth' does not exist"),
        (None, ['a.pth', './a.pth'], "'./a.pth' is given twice"),
        (None, ['a.pth', 'b.pth', '--out', './b.pth'], "would overwrite 'b.pth'"),
        (None, ['a.pth', 'b.pth', '--out', 'soup.txt'], "--out is 'soup.txt': .*ends with .pth"),
        (None, ['a.pth', 'b.pth', '--weights', '1'], '1 weights were given for 2 checkpoints'),
        (None, ['a.pth', 'b.pth', '--greedy', 'no.py'], "The config 'no.py' does not exist"),
        (None, ['a.pth', 'b.pth', '--greedy', 'val.py', '--figure', 'best'], "no figure 'best' to choose by"),
        (None, ['a.pth', '--wise-ft', 'zero.pth'], 'give --config, or one number as --alphas'),
        (None, ['a.pth', '--wise-ft', 'pretrained', '--alphas', '0.5'], 'as a config begins: say by --config which'),
        (None, ['a.pth', 'work'], "'work' is a folder: give work/epoch_3.pth"),
        (None, ['a.pth', '--wise-ft', 'zero.pth', '--alphas', '0:2:1'], "--alphas is '0:2:1'; alpha is a share"),
        (None, ['a.pth', '--wise-ft', 'zero.pth', '--alphas', 'half'], "--alphas is 'half'; give a number"),
        (other_config, ['a.pth', 'b.pth', '--greedy', 'other.py'], "'a.pth' .*neck|'a.pth' lacks"),
        (drop_validation, ['a.pth', 'b.pth', '--greedy', 'none.py'], "'none.py' has no validation set"),
        (other_classes, ['a.pth', 'changed.pth'], "class 1 is 'pear' in 'a.pth' and 'plum' in 'changed.pth'"),
        (other_model, ['a.pth', 'changed.pth'], "'changed.pth' is of another model than 'a.pth'.*logit_scale"),
        (other_shape, ['a.pth', 'changed.pth'], r"'changed.pth' has .*ln_final.bias of shape \(3,\), but 'a.pth' has"),
        (nan, ['a.pth', 'changed.pth'], "'changed.pth': The weights are NaN or infinite"),
        (
            no_state,
            ['changed.pth', 'a.pth', '--greedy', 'val.py'],
            "'changed.pth': The file is no checkpoint of MMEngine",
        ),
    ],
)
def test_what_is_refused_writes_nothing(files, prepare, arguments, sentence, monkeypatch):
    if prepare is not None:
        prepare(files)
    before = {path: path.read_bytes() for path in Path('.').glob('*.pth')}
    Path('work').mkdir()
    Path('work/epoch_3.pth').touch()
    monkeypatch.setattr(Validation, 'report', None)  # nothing is tested before
    with pytest.raises(SystemExit, match=sentence):
        tool.main([*arguments, *([] if '--out' in arguments else ['--out', 'out.pth'])])
    assert {path: path.read_bytes() for path in Path('.').glob('*.pth')} == before


@pytest.mark.parametrize(
    'arguments, sentence',
    [
        (['a.pth'], 'one checkpoint is nothing to merge'),
        (['a.pth', 'b.pth', '--weights', '1', '2', '--greedy', 'val.py'], '--weights and --greedy are two ways'),
        (['a.pth', 'b.pth', '--alphas', '0.5'], '--alphas needs --wise-ft'),
        (['a.pth', 'b.pth', '--ratio', '0.5'], '--ratio needs --lt-soups'),
    ],
)
def test_what_does_not_go_together(arguments, sentence, capsys):
    with pytest.raises(SystemExit):
        tool.main([*arguments, '--out', 'out.pth'])
    assert sentence in capsys.readouterr().err

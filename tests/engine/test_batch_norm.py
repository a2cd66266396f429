"""Statistics of BatchNorm measured anew: the formula by loops, what stays, and merged models that need it."""

import copy
import logging
from io import StringIO
from types import SimpleNamespace

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from mmengine.config import Config
from mmengine.dataset import DefaultSampler, default_collate
from mmengine.utils import ProgressBar
from mmpretrain.registry import MODELS
from torch.utils.data import DataLoader

from mmlt import InputError
from mmlt.checkpoints import read_checkpoint
from mmlt.checkpoints.merging import average
from mmlt.cli import merge as tool
from mmlt.engine import SoupHook
from mmlt.engine.batch_norm import measure_statistics
from mmlt.utils import leave_together
from tests.pictures import training_pictures

PLAIN = [dict(type='LoadImageFromFile'), dict(type='Resize', scale=(16, 16)), dict(type='PackInputs')]
MODEL = dict(
    type='ImageClassifier',
    backbone=dict(type='mmlt.CIFARResNet', depth=8, base_channels=4),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(type='LinearClsHead', num_classes=3, in_channels=16),
    data_preprocessor=dict(type='mmlt.CLIPDataPreprocessor'),
)


def network(seed=0):
    """A classifier with weights and statistics of its own."""
    torch.manual_seed(seed)
    model = MODELS.build(copy.deepcopy(MODEL))
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
            module.num_batches_tracked.fill_(7 + seed)
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
    return model.train()


def norms(model):
    return [name for name, module in model.named_modules() if isinstance(module, torch.nn.BatchNorm2d)]


def loader(folder, batch_size=4, **kwargs):
    dataset = training_pictures(folder, PLAIN)
    sampler = DefaultSampler(dataset, shuffle=False)
    return DataLoader(dataset, batch_size, sampler=sampler, collate_fn=default_collate, **kwargs)


@torch.no_grad()
def naive(model, loader, layers, batches):
    """Of every layer the mean over batches of mean and variance of what each channel is given, float64."""
    model = copy.deepcopy(model).eval()
    sums = {}

    def look(layer):
        def hook(module, args):
            (x,) = args
            for c in range(x.shape[1]):
                numbers = x[:, c].double().flatten()
                mean = sum(numbers) / len(numbers)
                variance = sum((v - mean) ** 2 for v in numbers) / (len(numbers) - 1)
                found = sums.setdefault((layer, c), [0.0, 0.0])
                found[0] += mean / batches
                found[1] += variance / batches

        return hook

    for layer in layers:
        module = model.get_submodule(layer)
        module.train().register_forward_pre_hook(look(layer))
    for number, data in enumerate(loader):
        if number < batches:
            model(**model.data_preprocessor(data, False))
    return {
        f'{layer}.{part}': torch.stack([sums[layer, c][i] for c in range(model.get_submodule(layer).num_features)])
        for layer in layers
        for i, part in enumerate(('running_mean', 'running_var'))
    }


@pytest.mark.parametrize('images, batches', [(8, 2), (3, 1), (4, 1), (99, 3)])
def test_statistics_are_those_of_a_loop(picture_folder, images, batches):
    model, layers = network(), norms(network())[1:3]
    before = {k: v.clone() for k, v in model.state_dict().items()}
    modes = {name: module.training for name, module in model.named_modules()}
    expected = naive(model, loader(picture_folder), layers, batches)
    state = torch.get_rng_state()
    measure_statistics(model, loader(picture_folder), layers, images)
    assert torch.equal(torch.get_rng_state(), state)
    after = model.state_dict()
    assert {k for k, v in after.items() if not torch.equal(v, before[k])} == set(expected)
    for key, value in expected.items():
        assert (after[key].double() - value).abs().max() <= 1e-4 * value.abs().max(), key
    assert {name: module.training for name, module in model.named_modules()} == modes
    assert all(model.get_submodule(layer).momentum == 0.1 for layer in layers)


def test_it_does_not_depend_on_the_statistics_before(picture_folder):
    one, other = network(), network()
    for layer in norms(other):
        other.get_submodule(layer).running_mean.fill_(9)
    for model in (one, other):
        measure_statistics(model, loader(picture_folder), norms(model))
    assert all(torch.equal(v, other.state_dict()[k]) for k, v in one.state_dict().items())


def test_no_bar_is_drawn(picture_folder, monkeypatch):
    """The bar has the stdout of its import, which no redirection reaches."""
    drawn = StringIO()
    monkeypatch.setattr(ProgressBar.__init__, '__defaults__', (*ProgressBar.__init__.__defaults__[:-1], drawn))
    measure_statistics(network(), loader(picture_folder), norms(network()))
    assert not drawn.getvalue()


def test_what_cannot_be_measured(picture_folder):
    with pytest.raises(InputError, match="no BatchNorm layer 'head.fc' whose statistics"):
        measure_statistics(network(), loader(picture_folder), ['head.fc'])
    with pytest.raises(InputError, match='not one whole batch of 64 images .* smaller train_dataloader.batch_size'):
        measure_statistics(network(), loader(picture_folder, 64, drop_last=True), norms(network()))


def _process(rank, folder, out):
    dist.init_process_group('gloo', init_method=f'file://{out}/store', rank=rank, world_size=2)
    model = network()
    measure_statistics(model, loader(folder, 2), norms(model), 4)
    torch.save(model.state_dict(), f'{out}/{rank}.pth')
    leave_together()


def test_two_processes_measure_the_mean_of_both(picture_folder, tmp_path, monkeypatch):
    """Four images, two of each process: the mean over all batches of two, the same everywhere."""
    monkeypatch.setenv('OMP_NUM_THREADS', '1')
    mp.spawn(_process, (str(picture_folder), str(tmp_path)), nprocs=2)
    first, second = (torch.load(tmp_path / f'{rank}.pth', weights_only=True) for rank in range(2))
    assert all(torch.equal(value, second[key]) for key, value in first.items())
    layer = norms(network())[0]  # what it is given does not depend on other layers
    model, data = network(), loader(picture_folder, 1)
    pictures = [batch for batch, _ in zip(data, range(4))]
    batches = [
        dict(inputs=torch.cat([pictures[i]['inputs'][0][None] for i in pair]), data_samples=None)
        for pair in ((0, 2), (1, 3))  # process r has every second image from r on
    ]
    expected = naive(model, batches, [layer], 2)
    for key, value in expected.items():
        assert (first[key].double() - value).abs().max() <= 1e-4 * value.abs().max(), key


# Merged models


@pytest.fixture
def files(two_stages):
    """bn.py with networks a.pth and b.pth, whose statistics differ; it validates on val.txt."""
    (two_stages / 'val.txt').write_text((two_stages / 'train.txt').read_text())
    (two_stages / 'bn.py').write_text(
        f"""
_base_ = ['./a.py']
model = dict(_delete_=True, **{MODEL!r})
pipeline = {PLAIN!r}
train_dataloader = dict(dataset=dict(pipeline=pipeline))
val_dataloader = dict(dataset=dict(pipeline=pipeline, ann_file='val.txt'))
test_dataloader = dict(dataset=dict(pipeline=pipeline))
default_hooks = dict(visualization=None)
del pipeline
"""
    )
    text = Config.fromfile('bn.py').pretty_text
    states = {name: network(seed).state_dict() for seed, name in enumerate('ab')}
    for name, state in states.items():
        meta = dict(cfg=text, dataset_meta=dict(classes=('apple', 'pear', 'plum')))
        torch.save(dict(meta=meta, state_dict=state), f'{name}.pth')
    return states


def statistics_of(path):
    state = read_checkpoint(path)['state_dict']
    return {k: v for k, v in state.items() if k.endswith(('.running_mean', '.running_var'))}


def measured_by_hand(state, folder, images):
    model = network()
    model.load_state_dict(state)
    expected = naive(model, loader(folder), norms(model), images // 4)
    return expected, model


def test_merged_models_are_measured(files, picture_folder, capsys):
    tool.main(['a.pth', 'b.pth', '--out', 'plain.pth'])
    assert '7 layers have BatchNorm statistics that are averaged as weights are' in capsys.readouterr().out
    options = ['--cfg-options', 'train_dataloader.sampler.shuffle=False']
    tool.main(['a.pth', 'b.pth', '--out', 'soup.pth', '--config', 'bn.py', '--bn-images', '8', *options])
    out = capsys.readouterr().out
    assert 'measured on 8 training images: 7' in out and 'averaged as weights are' not in out
    plain, soup = (read_checkpoint(f'{name}.pth') for name in ('plain', 'soup'))
    expected = measured_by_hand(plain['state_dict'], picture_folder, 8)[0]
    for key, value in soup['state_dict'].items():
        if key in expected:
            assert (value.double() - expected[key]).abs().max() <= 1e-4 * expected[key].abs().max(), key
            assert not torch.allclose(value, plain['state_dict'][key], rtol=1e-2)
        else:
            assert torch.equal(value, plain['state_dict'][key]), key
    assert soup['meta']['merged'] == dict(weights={'a.pth': 0.5, 'b.pth': 0.5}, way='uniform', bn_images=8, bn_layers=7)


@pytest.mark.parametrize(
    'arguments', [['a.pth', 'b.pth', '--greedy', 'bn.py'], ['a.pth', '--wise-ft', 'b.pth', '--config', 'bn.py']]
)
def test_what_is_chosen_was_tested_as_it_is_written(files, arguments, test_tool):
    alphas = ['--alphas', '0:1:0.5'] if '--wise-ft' in arguments else []
    tool.main([*arguments, *alphas, '--out', 'soup.pth', '--bn-images', '8'])
    merged = read_checkpoint('soup.pth')['meta']['merged']
    options = ['--cfg-options', 'test_dataloader.dataset.ann_file=val.txt']
    found = test_tool.main(['bn.py', 'soup.pth', '--work-dir', 'test', *options])
    assert merged['score'] == pytest.approx(found['shot/all'], abs=1e-4)
    assert merged['bn_images'] == 8 and merged['bn_layers'] == 7


def test_what_the_option_needs(files, capsys):
    with pytest.raises(SystemExit):
        tool.main(['a.pth', 'b.pth', '--out', 'soup.pth', '--bn-images', '8'])
    assert '--bn-images needs --config, whose training images' in capsys.readouterr().err
    arguments = ['a.pth', 'b.pth', '--out', 'soup.pth', '--config', 'bn.py', '--bn-images']
    with pytest.raises(SystemExit, match='--bn-images is 0; give at least 1'):
        tool.main([*arguments, '0'])
    with pytest.raises(SystemExit, match="'bn.py' has no train_dataloader, on whose images"):
        tool.main([*arguments, '8', '--cfg-options', 'train_dataloader=None'])


@pytest.mark.parametrize('images', [0, 8])
def test_soup_of_a_training(files, tmp_path, picture_folder, images):
    """Before its first step the model has the merged weights, and statistics that were measured, or not."""
    model = network(2)
    anchor = {key: value.clone() for key, value in model.state_dict().items()}
    runner = SimpleNamespace(
        iter=0,
        model=model,
        work_dir=str(tmp_path),
        cfg=Config.fromfile('bn.py'),
        train_dataloader=loader(picture_folder),
        logger=logging.getLogger('soup'),
    )
    SoupHook([['a.pth'], ['b.pth']], 0.5, bn_images=images).before_train(runner)
    merged = average({'anchor': anchor, **files}, [0.25, 0.25, 0.5]).state
    expected = measured_by_hand(merged, picture_folder, images)[0] if images else {}
    soup = read_checkpoint(str(tmp_path / 'soup.pth'))['state_dict']
    for key, value in model.state_dict().items():
        assert torch.equal(value, soup[key]), key
        wanted = expected.get(key, merged[key].double())
        assert (value.double() - wanted).abs().max() <= 1e-4 * wanted.abs().max(), key
    if images:
        assert not torch.allclose(statistics_of(str(tmp_path / 'soup.pth'))[key := next(iter(expected))], merged[key])


def test_settings_that_cannot_be():
    for images in (-1, 2.5):
        with pytest.raises(InputError, match=f"SoupHook's bn_images is {images}; give a whole number"):
            SoupHook([['a.pth']], bn_images=images)

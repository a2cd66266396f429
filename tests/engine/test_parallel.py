"""Trainings in parts (FSDP) against DDP, in the same two processes, and what they leave."""

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import open_clip
import pytest
import torch
from mmengine.config import Config
from mmengine.optim import OptimWrapper, OptimWrapperDict
from mmpretrain.registry import MODELS
from torch import nn

from mmlt import InputError
from mmlt.checkpoints import read_checkpoint
from mmlt.engine import BFloat16OptimWrapper, parallel
from mmlt.engine.parallel import FSDP, parallel_settings
from mmlt.engine.sharding import blocks
from mmlt.models import OpenCLIPText, OpenCLIPVision

MODEL = 'mmlt-tiny-vit'
WORKER = Path(__file__).parent / 'trainings.py'
# Five steps of eight pictures each.
SETTINGS = {
    'train_cfg.max_epochs': 5,
    'train_cfg.val_interval': 5,
    'param_scheduler': None,
    'randomness.seed': 3,
    'default_hooks.checkpoint.interval': 5,
    'default_hooks.checkpoint.max_keep_ckpts': -1,
}
ADAM = {'optim_wrapper.optimizer': dict(type='AdamW', lr=1e-3, weight_decay=0.01, _delete_=True)}
LEARNED_SCALE = {'model.head.logit_scale': 'pretrained', 'model.head.learn_logit_scale': True}
# Texts in full: the same operations in both, where the shortcuts of a text tower in parts are others.
FULL = {'model.head.text.shorten': False}


def launch(runs, env, *options, processes=2):
    """Train all of them, one after the other, in one launch."""
    Path('runs.json').write_text(json.dumps(runs))
    command = [sys.executable, '-m', 'torch.distributed.run', f'--nproc_per_node={processes}']
    command += [f'--master_port={env["PORT"]}', str(WORKER), 'runs.json', *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, env=env)
    assert done.returncode == 0, done.stdout[-1500:] + done.stderr[-4000:]
    return done.stdout + done.stderr


def both(name, config, options, **more):
    """A training by DDP and the same in parts."""
    return [
        dict(config=config, work_dir=f'{name}-{kind}', options={**SETTINGS, **options, 'parallel': kind}, **more)
        for kind in ('ddp', 'fsdp')
    ]


def load(name, file):
    return [read_checkpoint(Path(f'{name}-{kind}') / file) for kind in ('ddp', 'fsdp')]


def check_equal(one, other, bound, what):
    """Same names, types and shapes, and the same numbers up to a bound."""
    assert type(one) is type(other), what
    if isinstance(one, dict):
        assert list(one) == list(other), what
        for key in one:
            check_equal(one[key], other[key], bound, f'{what} {key}')
    elif isinstance(one, list):
        assert len(one) == len(other), what
        for i, (a, b) in enumerate(zip(one, other)):
            check_equal(a, b, bound, f'{what} {i}')
    elif isinstance(one, torch.Tensor):
        assert (one.shape, one.dtype) == (other.shape, other.dtype), what
        assert not one.numel() or (one.double() - other.double()).abs().max() <= bound, what
    elif isinstance(one, float):
        assert abs(one - other) <= bound, what
    else:
        assert one == other, what


def check_case(name, bound=1e-6, file='epoch_5.pth'):
    """Losses, first gradients, weights and optimizer state of both trainings; what was in parts is plain again."""
    one, other = load(name, 'steps.pth')
    for key in ('losses', 'gradients'):
        check_equal(one[key], other[key], bound, f'{name} {key}')
    norms = [[norm for norm in x['norms'] if norm is not None] for x in (one, other)]  # None where nothing is clipped
    assert norms[0] == pytest.approx(norms[1], rel=max(bound, 2e-6))
    assert len(one['losses']) == 5 and any(g is not None and g.abs().max() > 1e-3 for g in one['gradients'])
    assert one['share'] == 1 and other['share'] <= 0.52
    assert one['types'] == other['types']
    states = load(name, file)
    for key in ('state_dict', 'optimizer', 'ema_state_dict'):
        if key in states[0]:
            check_equal(states[0][key], states[1][key], bound, f'{name} {key}')


@pytest.fixture
def methods(two_stages, clip_file) -> Path:
    """a.py, cvlp.py, lgr.py, lift.py and more.py, of five epochs of one step of eight pictures each."""
    clip = f"model='{MODEL}', pretrained='{clip_file}'"
    (two_stages / 'texts').mkdir()
    for name in ('apple', 'pear', 'plum'):
        (two_stages / 'texts' / f'{name}.txt').write_text(f'A {name} grows on trees. It is sweet, the {name}.')
    common = """
_base_ = ['./a.py']
texts = dict(dataset=dict(class_texts='texts'))
train_dataloader, val_dataloader, test_dataloader = texts, texts, texts
del texts
"""
    (two_stages / 'cvlp.py').write_text(
        f"""{common}
model = dict(
    _delete_=True, type='mmlt.CVLP', templates='a photo of the {{}}',
    backbone=dict(type='mmlt.OpenCLIPVision', {clip}), text=dict(type='mmlt.OpenCLIPText', {clip}),
    texts=dict(type='mmlt.ClassTexts', templates='a photo of the {{}}'), teacher=dict({clip}),
    data_preprocessor=dict(type='mmlt.CLIPDataPreprocessor'))
default_hooks = dict(anchors=dict(type='mmlt.AnchorSelectionHook', num_anchors=4, images_per_class=2))
"""
    )
    (two_stages / 'lgr.py').write_text(
        f"""{common}
model = dict(
    _delete_=True, type='ImageClassifier', backbone=dict(type='mmlt.OpenCLIPVision', {clip}),
    head=dict(type='mmlt.LGRHead', num_classes=3, in_channels=64, anchors='cvlp-ddp/anchors.safetensors',
              learn_logit_scale=True),
    data_preprocessor=dict(type='mmlt.CLIPDataPreprocessor'))
"""
    )
    (two_stages / 'lift.py').write_text(
        f"""
_base_ = ['./a.py']
model = dict(
    backbone=dict(projection=False, adapter=dict(type='mmlt.AdaptFormer', bottleneck=4)),
    head=dict(_delete_=True, type='mmlt.CosineClsHead', num_classes=3, in_channels=64,
              text=dict(type='mmlt.OpenCLIPText', {clip}), loss=dict(type='mmlt.LogitAdjustedLoss')))
"""
    )
    (two_stages / 'more.py').write_text(
        """
_base_ = ['./a.py']
classifier = dict(type='ImageClassifier',
    backbone=dict(type='mmlt.OpenCLIPVision', model='mmlt-tiny-rn'),
    head=dict(type='LinearClsHead', num_classes=3, in_channels=128),
    data_preprocessor=dict(type='mmlt.CLIPDataPreprocessor'))
model = dict(_delete_=True, type='mmlt.MORE', classifier=classifier, peak=0.5)
optim_wrapper = dict(clip_grad=dict(max_norm=5))
default_hooks = dict(more=dict(type='mmlt.MOREHook', interval=2))
del classifier
"""
    )
    return two_stages


# Refusals, and the parts of a model


def test_settings():
    assert parallel_settings(Config()) is None and parallel_settings(Config(dict(parallel='ddp'))) is None
    assert parallel_settings(Config(dict(parallel='fsdp'))) == {}
    given = dict(type='fsdp', reshard_after_forward=False)
    assert parallel_settings(Config(dict(parallel=given))) == dict(reshard_after_forward=False)
    for cfg, message in (
        (dict(parallel='fspd'), "parallel is 'fspd'; give 'ddp', 'fsdp'"),
        (dict(parallel=dict(type='ddp', bucket_cap_mb=1)), "give 'ddp', 'fsdp'"),
        (dict(parallel=dict(type='fsdp', reshard=False)), "FSDP does not know 'reshard'; it takes reshard_after"),
        (dict(parallel='fsdp', compile=True), 'compile the blocks of the towers'),
        (dict(parallel='fsdp', model_wrapper_cfg=dict(type='X')), 'model_wrapper_cfg is of a wrapper'),
    ):
        with pytest.raises(InputError, match=message):
            parallel_settings(Config(cfg))


def test_an_old_torch_is_named(monkeypatch):
    monkeypatch.delattr('torch.distributed.fsdp.fully_shard')
    with pytest.raises(InputError, match='needs torch.distributed.fsdp.fully_shard'):
        parallel_settings(Config(dict(parallel='fsdp')))


def test_what_cannot_be_right_is_refused(monkeypatch):
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(2))], 0.1)
    runner = SimpleNamespace(model=nn.Linear(2, 2), _val_loop=None, optim_wrapper=OptimWrapper(optimizer))
    FSDP().check(runner)
    with pytest.raises(InputError, match='takes one optimizer'):
        FSDP().check(SimpleNamespace(**{**vars(runner), 'optim_wrapper': OptimWrapperDict(a=runner.optim_wrapper)}))
    runner._val_loop = SimpleNamespace(dataloader=[1, 2])
    monkeypatch.setattr(parallel, 'all_gather_object', lambda number: [number, 3])
    with pytest.raises(InputError, match='2, 3 batches to validate: set val_dataloader.sampler.round_up=True'):
        FSDP().check(runner)
    runner._val_loop, runner.optim_wrapper = None, BFloat16OptimWrapper(optimizer=optimizer)
    FSDP().check(runner)
    runner.optim_wrapper.loss_scaler = torch.amp.GradScaler('cpu')
    with pytest.raises(InputError, match="no loss scaling.*type='mmlt.BFloat16OptimWrapper'"):
        FSDP().check(runner)
    del runner.optim_wrapper.loss_scaler
    monkeypatch.setattr(torch, 'get_autocast_dtype', lambda device: torch.float16)
    with pytest.raises(InputError, match='no loss scaling, which float16 needs'):
        FSDP().check(runner)


def test_state_that_is_no_parameter_s_shape_is_refused():
    with pytest.raises(InputError, match=r"'row' has shape \(3,\) for a parameter of shape \(3, 4\)"):
        parallel._split_state('row', torch.zeros(3), nn.Parameter(torch.zeros(3, 4)))


def test_blocks_of_towers():
    def names(model):
        units = {id(unit) for unit in blocks(model)}
        return [name for name, module in model.named_modules() if id(module) in units]

    assert names(OpenCLIPVision(MODEL)) == [f'visual.transformer.resblocks.{i}' for i in range(2)]
    assert names(OpenCLIPVision('mmlt-tiny-rn')) == [f'visual.layer{i}' for i in range(1, 5)]
    assert names(OpenCLIPText(MODEL)) == [f'clip.transformer.resblocks.{i}' for i in range(2)]
    siglip = open_clip.create_model('ViT-B-16-SigLIP', load_weights=False, device='meta')
    expected = [f'{tower}.{i}' for tower in ('visual.trunk.blocks', 'text.transformer.resblocks') for i in range(12)]
    assert names(siglip) == expected
    resnet = MODELS.build(dict(type='ResNet', depth=18, base_channels=8, stem_channels=8))
    assert names(resnet) == [f'layer{i}' for i in range(1, 5)]
    swin = MODELS.build(dict(type='SwinTransformer', arch='tiny', img_size=64))
    order = blocks(swin)  # inner ones first
    assert order.index(swin.stages[3].blocks[0]) < order.index(swin.stages[3]) and len(order) == 12 + 4


# Trainings


def test_phase_a_in_parts_is_that_of_ddp_and_goes_on_in_one_process(methods, launcher_env, train_tool):
    """Averaged, clipped, validated in between; in one process it goes on from the checkpoint of two."""
    options = {
        **LEARNED_SCALE,
        **FULL,
        'custom_hooks': [dict(type='EMAHook')],
        'train_cfg.val_interval': 2,
        'optim_wrapper.clip_grad': dict(max_norm=0.5),
        'default_hooks.checkpoint.interval': 1,
    }
    out = launch(both('a', 'a.py', options), launcher_env)
    assert 'FSDP: 4 blocks and the rest of the model in parts over 2 processes, 1.69 of 3.39 million' in out
    check_case('a')
    assert all(norm > 0.5 for norm in load('a', 'steps.pth')[1]['norms'])  # all of them were clipped
    again = {**SETTINGS, **options, 'train_dataloader.batch_size': 8, 'parallel': 'fsdp'}
    again = [f'{key}={value!r}' for key, value in again.items()]
    train_tool.main(
        ['a.py', '--work-dir', 'one', '--resume', 'a-fsdp/epoch_2.pth', '--no-test', '--cfg-options', *again]
    )
    one, two = (read_checkpoint(f'{name}/epoch_5.pth') for name in ('one', 'a-fsdp'))
    check_equal(one['state_dict'], two['state_dict'], 1e-6, 'resumed')
    check_equal(one['optimizer']['state'], two['optimizer']['state'], 1e-6, 'resumed')


@pytest.mark.slow
def test_all_methods(methods, launcher_env):
    """CVLP with a teacher and its anchors, LGR, LIFT, MORE; in forms of optimizers that GPUs have by default."""
    fused = {'optim_wrapper.optimizer': dict(type='AdamW', lr=1e-3, fused=True, _delete_=True)}
    foreach = {'optim_wrapper.optimizer': dict(type='AdamW', lr=1e-3, foreach=True, _delete_=True)}
    clipped = {'optim_wrapper.clip_grad': dict(max_norm=1.0)}
    cases = {
        'cvlp': {**fused, **clipped, 'model.text.shorten': False},
        'lgr': {**foreach, **clipped},
        'lift': {'model.backbone.grad_checkpointing': True},
        'more': {},
    }
    launch([run for name, options in cases.items() for run in both(name, f'{name}.py', options)], launcher_env)
    for name in cases:
        check_case(name)
    one, two = (Path(f'cvlp-{kind}/anchors.txt').read_text() for kind in ('ddp', 'fsdp'))
    assert one == two
    check_equal(*(x['state_dict'] for x in load('more', 'merged.pth')), 1e-6, 'merged')


@pytest.mark.slow
def test_recomputed_compiled_accumulated_and_resumed(methods, launcher_env, train_tool):
    """Settings beside, texts by their shortcuts, and checkpoints of one process and of FSDP that go on elsewhere."""
    recomputed = {'model.backbone.grad_checkpointing': True, 'model.head.text.grad_checkpointing': True}
    towers = {
        f'model.{part}.{key}': value
        for part in ('backbone', 'head.text')
        for key, value in (('model', 'mmlt-tiny-rn'), ('pretrained', None))
    }
    stages = ['backbone.visual.layer1', 'backbone.visual.layer3']
    kept = {'parallel': dict(type='fsdp', reshard_after_forward=False)}
    one = [f'{key}={value!r}' for key, value in {**SETTINGS, 'default_hooks.checkpoint.interval': 2}.items()]
    train_tool.main(['a.py', '--work-dir', 'one', '--no-test', '--cfg-options', *one, 'train_dataloader.batch_size=8'])
    resumed = {'resume': True, 'load_from': 'one/epoch_2.pth'}
    runs = [
        *both('recomputed', 'a.py', {**recomputed, **FULL}),
        *both('resnet', 'a.py', {**towers, **FULL, 'activation_checkpointing': stages}),
        *both('accumulated', 'a.py', {**LEARNED_SCALE, **FULL, 'optim_wrapper.accumulative_counts': 2}),
        *both('compiled', 'a.py', FULL, compiled=True),
        *both('shortened', 'a.py', {**recomputed, 'default_hooks.checkpoint.interval': 2}),
        dict(config='a.py', work_dir='kept', options={**SETTINGS, **kept}),
        dict(config='a.py', work_dir='from-one', options={**SETTINGS, **resumed, 'parallel': 'fsdp'}),
        dict(
            config='a.py',
            work_dir='from-fsdp',
            options={**SETTINGS, **recomputed, **resumed, 'load_from': 'shortened-fsdp/epoch_2.pth'},
        ),
    ]
    launch(runs, launcher_env)
    for name in ('recomputed', 'resnet', 'compiled'):
        check_case(name)
    for name in ('accumulated', 'shortened'):  # the same sums in another order
        check_case(name, 1e-5)
    expected = read_checkpoint('one/epoch_5.pth')['state_dict']
    for folder in ('kept', 'from-one', 'from-fsdp', 'shortened-fsdp'):
        found = read_checkpoint(f'{folder}/epoch_5.pth')['state_dict']
        check_equal(expected, found, 1e-5, folder)


@pytest.mark.slow
def test_half_precision_of_blocks(methods, launcher_env):
    """With the policy of GPUs the blocks' weights are rounded, and the gradients are those of autocast but for that."""
    options = {'optim_wrapper.type': 'mmlt.BFloat16OptimWrapper', 'train_cfg.val_interval': 2}
    runs = [*both('a', 'a.py', options), *both('more', 'more.py', options)]
    launch(runs, launcher_env, '--as-on-a-gpu')
    for name, bound in (('a', 0.02), ('more', 1e-6)):  # low-rank parts are not rounded
        one, other = load(name, 'steps.pth')
        gradients = [(a, b) for a, b in zip(one['gradients'], other['gradients']) if a is not None]
        error = sum((a - b).square().sum() for a, b in gradients).sqrt()
        assert error <= bound * sum(a.square().sum() for a, _ in gradients).sqrt(), name
        assert (error > 0) == (name == 'a'), name
        assert one['losses'][0]['loss'] == pytest.approx(other['losses'][0]['loss'], rel=0.01)
        assert all(v.dtype != torch.bfloat16 for v in load(name, 'epoch_5.pth')[1]['state_dict'].values())


@pytest.mark.slow
def test_two_nodes_are_one_machine_with_two_processes(methods, repo, launcher_env):
    """Two launchers of one process each, as on two machines; both stages in parts, the second on cached features."""
    options = {**FULL, 'parallel': 'fsdp', 'train_cfg.max_epochs': 5, 'randomness.seed': 3}
    options = [f'{start}{k}={v!r}' for start in ('', 'stages.phase_a.options.') for k, v in options.items()]

    def command(folder, processes):
        head = ['bash', repo / 'tools/dist_train.sh', 'b.py', str(processes), '--work-dir', folder]
        return [*head, '--cfg-options', *options]

    nodes = [
        subprocess.Popen(
            command('two', 1),
            env={**launcher_env, 'NNODES': '2', 'NODE_RANK': str(rank), 'MASTER_ADDR': '127.0.0.1'},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(2)
    ]
    outs = [node.communicate(timeout=400)[0] for node in nodes]
    assert [node.returncode for node in nodes] == [0, 0], outs
    assert outs[0].count('in parts over 2 processes') == 2 and 'in parts over 2 processes' not in outs[1]
    done = subprocess.run(command('one', 2), capture_output=True, text=True, timeout=400, env=launcher_env)
    assert done.returncode == 0, done.stderr[-3000:]
    for file in ('phase_a/epoch_5.pth', 'epoch_5.pth'):
        one, two = (read_checkpoint(f'{name}/{file}')['state_dict'] for name in ('one', 'two'))
        check_equal(one, two, 1e-7, f'two nodes, {file}')
    one, two = (json.loads(Path(f'{name}/shot_report.json').read_text())['metrics'] for name in ('one', 'two'))
    assert one == pytest.approx(two, abs=1e-4)

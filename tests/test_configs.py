"""Every config loads, builds and runs on random weights; every command of the READMEs is right."""

import re
import shlex
from pathlib import Path

import mmengine
import numpy as np
import open_clip
import pytest
import torch
from mmengine.config import Config
from mmengine.dataset import Compose
from mmengine.optim import build_optim_wrapper
from mmengine.registry import DATA_SAMPLERS, DefaultScope
from mmpretrain.registry import MODELS, TRANSFORMS
from mmpretrain.structures import DataSample
from PIL import Image

from mmlt.engine.stages import plan

REPO = Path(__file__).parent.parent
CLASSES = tuple(f'thing {i}' for i in range(10))
CONFIGS = sorted(p for p in REPO.glob('configs/*/*.py') if p.parent.name != '_base_')
STAGED = [p for p in CONFIGS if p.with_name(f'{p.stem}_phase-a.py') in CONFIGS]
LIFT = [p for p in CONFIGS if p.parent.name == 'lift']
READMES = sorted(REPO.glob('configs/*/README.md'))
COMMANDS = list(
    dict.fromkeys(
        (readme.parent.name, line)
        for readme in READMES
        for line in readme.read_text().splitlines()
        if line.startswith('python tools/')
    )
)
TINY_CLIP = 'work_dirs/clip_tiny_printed-characters/open_clip.safetensors'
# The ablations of BALLAD as its README says to run them on MNIST-LT.
TINY_COMMANDS = [
    line.replace('ballad_rn50_imagenet-lt', 'ballad_tiny_mnist-lt')
    .replace('=1024', '=128')
    .replace('openai', TINY_CLIP)
    for folder, line in COMMANDS
    if folder == 'ballad' and 'ballad_rn50_imagenet-lt' in line
]


def config_id(path):
    return path.stem


def command_id(command):
    words = shlex.split(command if isinstance(command, str) else command[1])
    name = words[words.index('--work-dir') + 1] if '--work-dir' in words else words[2]
    return Path(name).stem


def dicts(cfg):
    """The dict and all dicts in it."""
    if isinstance(cfg, dict):
        yield cfg
        for value in cfg.values():
            yield from dicts(value)
    elif isinstance(cfg, (list, tuple)):
        for value in cfg:
            yield from dicts(value)


def towers(model):
    return [d for d in dicts(model) if str(d.get('type')).startswith('mmlt.OpenCLIP')]


def shrink(model):
    """Without weights, and tiny; after a check that the widths fit the real model."""
    (name,) = {t.model for t in towers(model)}
    config = open_clip.get_model_config(name)
    projected = model.backbone.get('projection', True)
    width = config['embed_dim'] if projected else config['vision_cfg']['width']
    for d in dicts(model):
        if 'in_channels' in d:
            assert d.in_channels == width
            d.in_channels = 128 if name == 'mmlt-tiny-rn' else 64
        if 'num_classes' in d:
            d.num_classes = len(CLASSES)
        if 'pretrained' in d:
            d.pretrained = None
    for tower in towers(model):
        tower.model = 'mmlt-tiny-rn' if name == 'mmlt-tiny-rn' else 'mmlt-tiny-vit'
    return model


class Labels:
    """A dataset of which only the labels are asked."""

    metainfo = dict(classes=CLASSES)
    labels = np.repeat(np.arange(10), np.arange(10, 0, -1))

    def __len__(self):
        return len(self.labels)

    def get_gt_labels(self):
        return self.labels


def build(cfg):
    model = MODELS.build(shrink(cfg.model))
    for module in model.modules():
        if hasattr(module, 'set_class_info'):
            module.set_class_info(CLASSES, np.bincount(Labels.labels).tolist())
    return model


def batch(model, training, size=32):
    samples = [DataSample(caption=f'a photo of {CLASSES[y]}').set_gt_label(y) for y in (3, 7)]
    inputs = torch.randint(0, 256, (2, 3, size, size), dtype=torch.uint8)
    return model.data_preprocessor(dict(inputs=inputs, data_samples=samples), training)


def check_runs(cfg):
    """The model does a training step on what is to be trained, and predicts."""
    model, wrapper = build(cfg), None
    if cfg.get('train_cfg'):
        sampler = DATA_SAMPLERS.build(cfg.train_dataloader.sampler, default_args=dict(dataset=Labels(), seed=0))
        assert set(sampler) <= set(range(len(Labels())))
        wrapper = build_optim_wrapper(model, cfg.optim_wrapper)
        before = {n: p.detach().clone() for n, p in model.named_parameters()}
        loss = model(**batch(model, True), mode='loss')['loss']
        assert torch.isfinite(loss)
        wrapper.backward(loss)
        wrapper.step()
        changed = {n for n, p in model.named_parameters() if not torch.equal(p, before[n])}
        assert changed and changed <= {n for n, p in model.named_parameters() if p.requires_grad}
    model.eval()
    with torch.no_grad():
        predictions = model(**batch(model, False), mode='predict')
    for sample in predictions:
        assert sample.pred_score.shape == (10,)
        assert sample.pred_score.sum().item() == pytest.approx(1, abs=1e-4)
    return model, wrapper


@pytest.mark.parametrize('path', CONFIGS, ids=config_id)
def test_model_trains_a_step_and_predicts(path):
    check_runs(Config.fromfile(path))


@pytest.mark.parametrize('path', CONFIGS, ids=config_id)
def test_pictures_come_in_the_size_of_the_tower(path, tmp_path):
    cfg = Config.fromfile(path)
    size = open_clip.get_model_config(cfg.model.backbone.model)['vision_cfg']['image_size']
    pixels = np.random.default_rng(0).integers(0, 256, (28, 28, 3), dtype=np.uint8)
    file = tmp_path / 'picture.jpg'
    Image.fromarray(np.kron(pixels, np.ones((10, 14, 1), np.uint8))).save(file)
    for loader in (cfg.train_dataloader, cfg.val_dataloader, cfg.test_dataloader):
        if loader is None:
            continue
        pipeline = Compose([TRANSFORMS.build(t) for t in loader.dataset.pipeline])
        packed = pipeline(dict(img=pixels.copy(), img_path=str(file), gt_label=3, caption='a photo'))
        assert packed['inputs'].shape == (3, size, size)
        assert packed['inputs'].dtype == torch.uint8
        assert packed['data_samples'].gt_label.tolist() == [3]


@pytest.mark.parametrize('path', LIFT, ids=config_id)
def test_lift(path, test_tool, monkeypatch, tmp_path):
    monkeypatch.setenv('LOCAL_RANK', '0')
    cfg = Config.fromfile(path)
    backbone, head = cfg.model.backbone, cfg.model.head
    size = open_clip.get_model_config(backbone.model)['vision_cfg']['image_size']
    # The texts of the same model and weights, and one number of classes everywhere.
    assert {k: v for k, v in head.text.items() if k != 'type'} == {
        k: backbone[k] for k in ('model', 'pretrained', 'quick_gelu') if k in backbone
    }
    assert backbone.adapter.num_classes == head.num_classes == {'imagenet-lt': 1000, 'places-lt': 365}.get(
        path.stem.split('_')[2], 10
    )
    assert not backbone.projection and not head.get('projected', False)
    if 'plus' in path.stem:
        crop = next(t for t in cfg.train_dataloader.dataset.pipeline if 'Crop' in t.type)
        assert crop.type == 'mmlt.GrowingRandomResizedCrop' and cfg.default_hooks.epoch.type == 'mmlt.EpochHook'
    # With --tta: five crops of an enlarged picture, and one prediction.
    cfg = test_tool.load_config(test_tool.parse_args([str(path), __file__, '--tta']))
    pixels = np.random.default_rng(0).integers(0, 256, (28, 28, 3), dtype=np.uint8)
    file = tmp_path / 'picture.jpg'
    Image.fromarray(np.kron(pixels, np.ones((10, 14, 1), np.uint8))).save(file)
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        pipeline = Compose([TRANSFORMS.build(t) for t in cfg.test_dataloader.dataset.pipeline])
        shrink(cfg.model.module)
        model = MODELS.build(cfg.model).eval()
    views = pipeline(dict(img=pixels.copy(), img_path=str(file), gt_label=3))
    assert [tuple(view.shape) for view in views['inputs']] == [(3, size, size)] * 5
    assert len({view.float().mean().item() for view in views['inputs']}) == 5
    data = dict(inputs=torch.randint(0, 256, (5, 2, 3, 32, 32), dtype=torch.uint8))
    data['data_samples'] = [[DataSample().set_gt_label(y) for y in (3, 7)] for _ in range(5)]
    assert [sample.pred_score.shape for sample in model.test_step(data)] == [(10,)] * 2


@pytest.mark.parametrize('name', ['cifar100-lt', 'cifar10-lt'])
def test_cifar_reaches_the_preprocessor_as_bgr(name):
    cfg = Config.fromfile(REPO / f'configs/_base_/datasets/{name}.py')
    loaders = (cfg.train_dataloader, cfg.val_dataloader, cfg.test_dataloader)
    assert {loader.dataset.type for loader in loaders} == {f'mmlt.{name.split("-")[0].upper()}LT'}
    red = np.zeros((32, 32, 3), np.uint8)
    red[..., 0] = 255
    packed = Compose([TRANSFORMS.build(t) for t in cfg.test_pipeline])(dict(img=red, gt_label=0))
    assert packed['inputs'].float().mean((1, 2)).tolist() == [0, 0, 255]


@pytest.mark.parametrize('path', STAGED, ids=config_id)
def test_phase_b_goes_on_where_phase_a_ends(path, tmp_path):
    cfg = Config.fromfile(path)
    cfg.work_dir = str(tmp_path)
    *earlier, own = plan(cfg)
    phase_a = earlier[-1]
    assert (phase_a.name, phase_a.work_dir) == ('phase_a', str(tmp_path / 'phase_a'))
    assert Path(phase_a.cfg.filename) == path.with_name(f'{path.stem}_phase-a.py')
    assert cfg.stages.phase_a.load_from and own.cfg is cfg
    for key in ('templates', 'logit_scale'):
        assert cfg.model.head[key] == phase_a.cfg.model.head[key]
    assert cfg.model.data_preprocessor == phase_a.cfg.model.data_preprocessor
    assert cfg.test_dataloader == phase_a.cfg.test_dataloader
    # The same towers; phase B names no weights, so their activation has to be named.
    for b, a in zip(towers(cfg.model), towers(phase_a.cfg.model), strict=True):
        assert b == {**a, 'pretrained': None, 'frozen': True}
        assert bool(b.get('quick_gelu')) == (a.pretrained == 'openai')
    model_a, model_b = build(phase_a.cfg), build(cfg)
    shapes_a, shapes_b = ({k: v.shape for k, v in m.state_dict().items()} for m in (model_a, model_b))
    assert shapes_a.items() <= shapes_b.items()
    trained = {n for n, p in model_b.named_parameters() if p.requires_grad}
    assert trained == {'neck.linear.weight', 'neck.linear.bias'}


def load(command, tool):
    """The config of a command line, with its options."""
    words = shlex.split(command)
    assert words[0] == 'python'
    args = tool.parse_args(words[2:])
    if getattr(args, 'checkpoint', None):
        args.checkpoint = __file__  # some file; the real one is there after a training
    return tool.load_config(args)


def check_command(command, train_tool, test_tool, monkeypatch):
    monkeypatch.chdir(REPO)
    monkeypatch.setenv('LOCAL_RANK', '0')
    script = command.split()[1]
    assert script in ('tools/train.py', 'tools/test.py')
    if script == 'tools/test.py':
        return check_runs(load(command, test_tool)) + (None,)
    cfg = load(command, train_tool)
    stages = {s.name: s.cfg for s in plan(cfg)}
    if (cfg.get('stages') or {}).get('phase_a', {}).get('options'):
        check_runs(stages['phase_a'])
    return check_runs(cfg) + (stages,)


@pytest.mark.parametrize('command', COMMANDS, ids=command_id)
def test_readme_command(command, train_tool, test_tool, monkeypatch):
    check_command(command[1], train_tool, test_tool, monkeypatch)


@pytest.mark.parametrize('command', TINY_COMMANDS, ids=command_id)
def test_readme_command_on_mnist_lt(command, train_tool, test_tool, monkeypatch):
    check_command(command, train_tool, test_tool, monkeypatch)


def test_readme_ablations_do_what_they_say(train_tool, test_tool, monkeypatch):
    by_name = {command_id(c): c[1] for c in COMMANDS if c[0] == 'ballad'}

    def run(name):
        return check_command(by_name[name], train_tool, test_tool, monkeypatch)

    def trained(model):
        return {n.rsplit('.linear', 1)[0] for n, p in model.named_parameters() if p.requires_grad}

    assert trained(run('adapter-text')[0]) == {'head.text_adapter'}
    assert trained(run('adapter-both')[0]) == {'head.text_adapter', 'neck'}
    assert not any(n.startswith('head.text') for n in trained(run('finetune-vision')[0]))
    assert not any(n.startswith('backbone') for n in trained(run('finetune-text')[0]))
    model, wrapper, _ = run('joint')
    rates = {id(p): g['lr'] for g in wrapper.param_groups for p in g['params']}
    assert [rates[id(p)] for p in model.neck.parameters()] == pytest.approx([0.2, 0.2])
    assert {rates[id(p)] for p in model.backbone.parameters()} == {1e-5}
    model = run('published')[0]
    assert model.neck.linear.bias is None and not model.neck.relu
    balanced, plain = 'mmlt.ClassBalancedSampler', 'DefaultSampler'
    for name, expected in {
        'balance-none': [plain, plain],
        'balance-a': [balanced, plain],
        'balance-both': [balanced, balanced],
    }.items():
        assert [cfg.train_dataloader.sampler.type for cfg in run(name)[2].values()] == expected


@pytest.mark.parametrize('readme', READMES, ids=lambda p: p.parent.name)
def test_readme_links_exist(readme):
    links = re.findall(r'\]\(([^)#]+)\)', readme.read_text())
    assert not [link for link in links if not link.startswith('http') and not (readme.parent / link).exists()]


@pytest.mark.parametrize('path', sorted(REPO.glob('configs/*/metafile.yml')), ids=lambda p: p.parent.name)
def test_metafile_names_configs_that_exist(path):
    meta = mmengine.load(path)
    collections = {c['Name'] for c in meta['Collections']}
    assert all((REPO / c['README']).exists() for c in meta['Collections'])
    for model in meta['Models']:
        assert model['In Collection'] in collections
        assert REPO / model['Config'] in CONFIGS
        assert Path(model['Config']).stem == model['Name']


@pytest.mark.slow
def test_real_rn50():
    cfg = Config.fromfile(REPO / 'configs/ballad/ballad_rn50_imagenet-lt.py')
    model = MODELS.build(cfg.model)
    model.head.set_class_info(open_clip.IMAGENET_CLASSNAMES)
    data = batch(model, False, 224)
    assert model.eval().extract_feat(data['inputs'])[-1].shape == (2, 1024)
    with torch.no_grad():
        assert model(**data, mode='predict')[0].pred_score.shape == (1000,)

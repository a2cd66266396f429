"""Logits and loss against naive float64 versions, prompts, caches and checkpoints of TextClsHead."""

import copy
import math

import open_clip
import pytest
import torch
from mmengine.runner import load_checkpoint
from mmpretrain.registry import MODELS
from mmpretrain.structures import DataSample
from safetensors.torch import load_file, save_file

from mmlt import InputError
from mmlt.models import TextClsHead
from mmlt.models.text import class_prompts
from mmlt.models.text.open_clip_text import bounded_scale
from mmlt.utils.class_info import ClassInfo

MODEL = 'mmlt-tiny-vit'
CLASSES = ('cat', 'polar bear', 'aeroplane')
TEMPLATES = ('a photo of a {}.', 'art of the {}.', 'a {} in the video game.')
LABELS = [2, 0, 1, 1, 0]


def make(frozen=False, classes=CLASSES, model=MODEL, **kwargs):
    text = dict(type='mmlt.OpenCLIPText', model=model, frozen=frozen)
    return MODELS.build(dict(type='mmlt.TextClsHead', text=text, classes=classes, **kwargs))


def images(n=5, dtype=torch.float64):
    return torch.randn(n, 64, dtype=dtype, generator=torch.Generator().manual_seed(3))


def samples(labels=LABELS):
    return [DataSample().set_gt_label(y) for y in labels]


def naive_texts(head, templates, classes=CLASSES, adapter=None):
    """Class embeddings by open_clip's full tower: mean over templates of unit vectors, made a unit vector again."""
    tokenizer = open_clip.get_tokenizer(MODEL)
    rows = []
    for name in classes:
        total = 0
        for template in templates:
            f = head.text.clip.encode_text(tokenizer([template.replace('{}', name)]))[0].double()
            if adapter is not None:
                f = adapter(f)
            total = total + f / f.square().sum().sqrt()
        mean = total / len(templates)
        rows.append(mean / mean.square().sum().sqrt())
    return torch.stack(rows)


def naive_logits(image, texts, scale):
    rows = [[scale * torch.dot(f, t) / f.square().sum().sqrt() for t in texts] for f in image.double()]
    return torch.stack([torch.stack(row) for row in rows])


def naive_loss(logits, labels):
    losses = [row.exp().sum().log() - row[y] for row, y in zip(logits - logits.max(), labels)]
    return torch.stack(losses).mean()


def count_encodings(head, monkeypatch):
    shapes = []
    encode = head.text.forward
    spy = lambda tokens, plan=None: shapes.append(tuple(tokens.shape)) or encode(tokens, plan)  # noqa: E731
    monkeypatch.setattr(head.text, 'forward', spy)
    return shapes


def step(head):
    """A training step that changes the text tower."""
    head.train()
    optimizer = torch.optim.SGD([p for p in head.parameters() if p.requires_grad], lr=1.0)
    head.loss((images(dtype=torch.float32),), samples())['loss'].backward()
    optimizer.step()


# Values


@pytest.mark.parametrize('templates', [TEMPLATES[:1], TEMPLATES])
@pytest.mark.parametrize('scale', [100.0, 7.0])
def test_logits_loss_and_gradients(templates, scale):
    head = make(templates=templates, logit_scale=scale).double()
    x = images().requires_grad_()
    logits, loss = head((x,)), head.loss((x,), samples())['loss']
    texts = naive_texts(head, templates)
    expected = naive_logits(x, texts, scale)
    assert (head.class_embeddings() - texts).abs().max() <= 1e-12
    assert (logits - expected).abs().max() <= 1e-10
    assert logits.shape == (5, 3)
    expected = naive_loss(expected, LABELS)
    assert (loss - expected).abs() <= 1e-10

    trained = {n: p for n, p in head.named_parameters() if p.requires_grad}
    assert trained.keys() == {f'text.clip.{n}' for n, _ in head.text.clip.named_parameters()} - {
        'text.clip.logit_scale'
    }
    inputs = (x, *trained.values())
    actual = torch.autograd.grad(loss, inputs)
    for name, a, b in zip(('x', *trained), actual, torch.autograd.grad(expected, inputs)):
        assert b.abs().max() > 1e-7, name
        assert (a - b).abs().max() <= 1e-9 * max(1, b.abs().max()), name


def test_only_the_last_feature_counts():
    head = make().double()
    assert torch.equal(head((images()[:, :3], images())), head((images(),)))


def test_default_template_and_scale():
    head = make().double()
    expected = naive_logits(images(), naive_texts(head, ['a photo of a {}.']), 100)
    assert (head((images(),)) - expected).abs().max() <= 1e-10


@pytest.mark.parametrize('frozen', [False, True])
def test_predictions(frozen):
    head = make(frozen=frozen, templates=TEMPLATES, logit_scale=20.0).eval()
    x = images(dtype=torch.float32)
    logits = naive_logits(x, naive_texts(head, TEMPLATES), 20)
    given = samples()
    out = head.predict((x,), given)
    assert all(a is b for a, b in zip(out, given))
    scores = torch.stack([s.pred_score for s in out])
    assert (scores - logits.softmax(1)).abs().max() <= 1e-5
    assert [int(s.pred_label) for s in out] == logits.argmax(1).tolist()
    assert len(head.predict((x,))) == 5


def test_accuracy_and_losses_of_cls_head():
    head = make(cal_acc=True, loss=dict(type='LabelSmoothLoss', label_smooth_val=0.1, mode='original')).double()
    logits = naive_logits(images(9), naive_texts(head, TEMPLATES[:1]), 100)
    labels = [(int(row.argmax()) + (i % 3 == 0)) % 3 for i, row in enumerate(logits)]
    out = head.loss((images(9),), samples(labels))
    log_p = (logits - logits.max()).log_softmax(1)
    expected = -torch.stack([0.9 * row[y] + 0.1 / 3 * row.sum() for row, y in zip(log_p, labels)]).mean()
    assert (out['loss'] - expected).abs() <= 1e-6  # MMPretrain smooths in float32
    # MMPretrain's training accuracy counts a hit only where its logit is positive.
    hits = sum(int(row.argmax() == y and row[y] > 0) for row, y in zip(logits, labels))
    assert hits > 0
    assert out['accuracy_top-1'][0].item() == pytest.approx(100 * hits / 9)


@pytest.mark.parametrize('frozen', [False, True])
@pytest.mark.parametrize('templates', [TEMPLATES[:1], TEMPLATES])
def test_text_adapter(frozen, templates):
    adapter = dict(type='mmlt.BalancedLinearAdapter', in_channels=64, residual_ratio=0.6)
    head = make(frozen=frozen, templates=templates, text_adapter=adapter)
    linear = copy.deepcopy(head.text_adapter.linear).double()
    texts = naive_texts(head, templates, adapter=lambda f: 0.6 * linear(f).relu() + 0.4 * f)
    x = images(dtype=torch.float32)
    for mode in (True, False):
        logits = head.train(mode)((x,))
        assert (logits - naive_logits(x, texts, 100)).abs().max() <= 1e-3
    head.train().loss((x,), samples())['loss'].backward()
    assert head.text_adapter.linear.weight.grad.abs().max() > 1e-5
    expected = naive_loss(naive_logits(x, texts, 100), LABELS)
    expected.backward()
    gradient = linear.weight.grad
    assert (head.text_adapter.linear.weight.grad - gradient).abs().max() <= 1e-3 * gradient.abs().max()


def test_the_adapter_of_frozen_texts_is_applied_anew_at_every_step(monkeypatch):
    head = make(frozen=True, text_adapter=dict(type='mmlt.BalancedLinearAdapter', in_channels=64, residual_ratio=0.6))
    encodings = count_encodings(head, monkeypatch)
    before = head.class_embeddings().detach()
    step(head)
    assert (head.class_embeddings() - before).abs().max() > 1e-4
    assert len(encodings) == 1


# Logit scale


def test_fixed_scale():
    head = make(logit_scale=25)
    assert head.logit_scale == 25.0
    assert head.log_scale is None


def test_learned_scale():
    head = make(logit_scale=50.0, learn_logit_scale=True).double()
    assert head.logit_scale.item() == pytest.approx(50, rel=1e-6)
    x = images()
    log_scale = torch.tensor(head.log_scale.item(), dtype=torch.float64, requires_grad=True)
    expected = naive_loss(naive_logits(x, naive_texts(head, TEMPLATES[:1]).detach(), log_scale.exp()), LABELS)
    loss = head.loss((x,), samples())['loss']
    loss.backward()
    expected.backward()
    assert (loss - expected).abs() <= 1e-10
    assert (head.log_scale.grad - log_scale.grad).abs() <= 1e-9
    assert log_scale.grad.abs() > 1e-2
    assert head.text.clip.logit_scale.grad is None
    head.log_scale.data.fill_(10.0)
    assert head.logit_scale.item() == pytest.approx(100)


@pytest.mark.parametrize('frozen', [False, True])
@pytest.mark.parametrize('learn', [False, True])
def test_pretrained_scale(frozen, learn):
    head = make(frozen=frozen, logit_scale='pretrained', learn_logit_scale=learn)
    head.text.clip.logit_scale.data.fill_(3.0)
    x = images(dtype=torch.float32)
    expected = naive_logits(x, naive_texts(head, TEMPLATES[:1]), math.exp(3))
    assert (head((x,)) - expected).abs().max() <= 1e-4
    assert head.text.clip.logit_scale.requires_grad == learn
    x.requires_grad_()
    head.loss((x,), samples())['loss'].backward()
    gradient = head.text.clip.logit_scale.grad
    assert (gradient is not None and bool(gradient.abs() > 1e-3)) == learn


def test_a_learned_scale_can_leave_its_start_of_100():
    """100 is the default; the logarithm of 100 in float32 lies a little above the clamp."""
    head = make(learn_logit_scale=True)
    head.loss((images(dtype=torch.float32),), samples())['loss'].backward()
    assert head.log_scale.grad.abs() > 1e-3


def test_a_learned_pretrained_scale_can_leave_openais_value():
    """OpenAI's models hold 4.6052, which lies a little above the clamp."""
    head = make(logit_scale='pretrained', learn_logit_scale=True)
    head.text.clip.logit_scale.data.fill_(4.6052)
    head.loss((images(dtype=torch.float32),), samples())['loss'].backward()
    assert head.text.clip.logit_scale.grad.abs() > 1e-3


@pytest.mark.parametrize('compiled', [False, True])
def test_only_a_learned_scale_is_itself_clamped(compiled):
    """In place, where it is used in a training; two passes before a backward pass, as under MORE, do no harm."""
    learned, fixed = (torch.tensor(4.7, requires_grad=r) for r in (True, False))
    scale = torch.compile(bounded_scale, backend='aot_eager') if compiled else bounded_scale
    with torch.no_grad():
        assert scale(learned).item() == scale(fixed).item() == 100
    assert learned.item() == fixed.item() == pytest.approx(4.7, rel=1e-6)
    total = scale(learned) + 2 * scale(learned)
    assert total.item() == pytest.approx(300, rel=1e-6) and learned.item() == pytest.approx(math.log(100), rel=1e-6)
    total.backward()
    assert learned.grad.item() == pytest.approx(300, rel=1e-6)
    assert scale(fixed).item() == 100 and fixed.item() == pytest.approx(4.7, rel=1e-6)


@pytest.mark.parametrize('scale', [80.0, 'pretrained'])
def test_a_learned_scale_stays_at_its_bound_and_comes_back(scale):
    """As in CLIP, where the parameter itself is clamped: what pushes it beyond 100 leaves no trace."""
    head = make(frozen=True, logit_scale=scale, learn_logit_scale=True)
    parameter = head.text.clip.logit_scale if scale == 'pretrained' else head.log_scale
    texts = head.class_embeddings()
    noise = torch.randn(64)
    noise = noise - texts.t() @ torch.linalg.lstsq(texts.t(), noise[:, None]).solution[:, 0]
    x = noise / noise.norm() + 0.03 * (texts - texts.mean(0))  # right by a small margin: the scale should grow
    optimizer = torch.optim.SGD([parameter], lr=1.0)

    def train(labels, steps):
        for _ in range(steps):
            optimizer.zero_grad()
            head.loss((x,), samples(labels))['loss'].backward()
            optimizer.step()

    parameter.data.fill_(math.log(90))
    train([0, 1, 2], 100)
    assert head.logit_scale.item() == pytest.approx(100, abs=0.1)
    assert parameter.item() == pytest.approx(math.log(100), abs=0.3)
    train([1, 2, 0], 5)  # all wrong: it should shrink
    assert head.logit_scale < 99


@pytest.mark.parametrize('scale', [0, -1.0, float('nan'), 'pretrain'])
def test_bad_scale(scale):
    with pytest.raises(InputError, match=f"logit_scale is {scale!r}; it must be a positive number or 'pretrained'"):
        make(logit_scale=scale)


# Prompts


def drawn(head, texts):
    """Which template a head uses now."""
    distances = (texts - head.class_embeddings().detach()).abs().amax((1, 2))
    assert distances.min() <= 1e-5
    return int(distances.argmin())


@pytest.mark.parametrize('frozen', [False, True])
def test_random_templates(frozen):
    heads = [make(frozen=frozen, templates=TEMPLATES, prompt_mode='random', seed=seed) for seed in (4, 4, 5)]
    for other in heads[1:]:
        other.load_state_dict(heads[0].state_dict())
    texts = torch.stack([naive_texts(heads[0], [t]).float() for t in TEMPLATES]).detach()
    x = images(dtype=torch.float32)
    draws = [[], [], []]
    for _ in range(12):
        for head, sequence in zip(heads, draws):
            sequence.append(drawn(head, texts))
            assert drawn(head, texts) == sequence[-1]  # until the step is over
            head.loss((x,), samples())
    assert draws[0] == draws[1] != draws[2]
    assert set(draws[0]) == {0, 1, 2}
    for head in heads:
        assert drawn(head.eval(), texts) == 0
        head.loss((x,), samples())
        assert drawn(head, texts) == 0
    # A resumed run goes on in the same order.
    resumed = make(frozen=frozen, templates=TEMPLATES, prompt_mode='random', seed=4)
    resumed.load_state_dict(heads[0].state_dict())
    assert int(resumed.steps) == 13
    assert drawn(resumed.train(), texts) == drawn(heads[1].train(), texts)


def test_a_random_template_is_the_only_one_encoded(monkeypatch):
    head = make(templates=TEMPLATES, prompt_mode='random')
    encodings = count_encodings(head, monkeypatch)
    head.loss((images(dtype=torch.float32),), samples())
    assert encodings == [(3, 16)]


def test_prompts_are_tokenised_once(monkeypatch):
    head = make(classes=None, templates=TEMPLATES)
    seen = []
    tokenize = head.text.tokenize
    monkeypatch.setattr(head.text, 'tokenize', lambda texts: seen.append(list(texts)) or tokenize(texts))
    head.set_class_info(ClassInfo(CLASSES))
    for _ in range(2):
        head.train().loss((images(dtype=torch.float32),), samples())
        head.eval()((images(dtype=torch.float32),))
    head.set_class_info(ClassInfo(list(CLASSES), [5, 3, 1]))
    assert seen == class_prompts(CLASSES, TEMPLATES)
    assert head.class_tokens.shape == (3, 3, 16)
    for prompts, tokens in zip(seen, head.class_tokens):
        assert torch.equal(tokens, open_clip.get_tokenizer(MODEL)(prompts))


@pytest.mark.parametrize('frozen', [False, True])
def test_other_classes_give_other_texts(frozen):
    head = make(frozen=frozen).eval()
    assert head((images(dtype=torch.float32),)).shape == (5, 3)
    head.set_class_info(ClassInfo(('dog', 'cat')))
    texts = naive_texts(head, TEMPLATES[:1], ('dog', 'cat'))
    assert (head.class_embeddings() - texts).abs().max() <= 1e-5


# Caches


def test_trained_texts_are_encoded_at_every_step_and_once_in_evaluation(monkeypatch):
    head = make()
    encodings = count_encodings(head, monkeypatch)
    x = images(dtype=torch.float32)
    for n in (1, 2):
        head.loss((x,), samples())
        assert len(encodings) == n
    head.eval()
    for _ in range(3):
        head((x,))
    assert len(encodings) == 3
    assert not head.class_embeddings().requires_grad


def test_features_of_trained_texts_are_forgotten_with_training():
    head = make().eval()
    before = head.class_embeddings()
    step(head)
    assert head.train().class_embeddings().requires_grad
    after = head.eval().class_embeddings()
    assert (after - before).abs().max() > 1e-3
    assert (after - naive_texts(head, TEMPLATES[:1])).abs().max() <= 1e-5


def test_gradients_reach_the_text_tower_after_an_evaluation():
    head = make()
    head.eval()((images(dtype=torch.float32),))
    head.train().loss((images(dtype=torch.float32),), samples())['loss'].backward()
    assert head.text.clip.token_embedding.weight.grad.abs().max() > 1e-4


@pytest.mark.parametrize('mode', ['ensemble', 'random'])
def test_frozen_texts_are_encoded_once(monkeypatch, mode):
    head = make(frozen=True, templates=TEMPLATES, prompt_mode=mode)
    encodings = count_encodings(head, monkeypatch)
    x = images(dtype=torch.float32).requires_grad_()
    for _ in range(2):
        head.train().loss((x,), samples())['loss'].backward()
        head.eval()((x,))
    assert encodings == [(9, 16)]
    assert x.grad.abs().max() > 0
    assert all(p.grad is None for p in head.parameters())


@pytest.mark.parametrize('frozen', [False, True])
def test_features_are_forgotten_with_new_weights(frozen):
    head, other = make(frozen=frozen).eval(), make(frozen=frozen).eval()
    before = head.class_embeddings()
    head.load_state_dict(other.state_dict())
    assert (head.class_embeddings() - before).abs().max() > 1e-2
    assert torch.equal(head.class_embeddings(), other.class_embeddings())


def test_features_are_not_in_the_checkpoint():
    head = make(frozen=True)
    head((images(dtype=torch.float32),))
    assert 'text_features' not in head.state_dict()


# Embeddings in a file


@pytest.mark.parametrize('adapter', [None, dict(type='mmlt.BalancedLinearAdapter', in_channels=64)])
def test_class_embeddings_file(tmp_path, adapter):
    head = make(templates=TEMPLATES, text_adapter=adapter).eval()
    path = str(tmp_path / 'classes.safetensors')
    head.save_class_embeddings(path)
    light = TextClsHead(class_embeddings=path, classes=CLASSES)
    assert torch.equal(load_file(path)['class_embeddings'], head.class_embeddings())
    assert not list(light.parameters())
    x = images(dtype=torch.float32)
    for mode in (True, False):
        assert (light.train(mode)((x,)) - head((x,))).abs().max() <= 1e-4
    loss = light.train().loss((x.requires_grad_(),), samples())['loss']
    expected = naive_loss(head((x,)).double(), LABELS)
    assert (loss - expected).abs() <= 1e-4
    loss.backward()
    assert x.grad.abs().max() > 1e-4


def test_class_embeddings_need_no_class_names(tmp_path):
    head = make().eval()
    head.save_class_embeddings(str(tmp_path / 'c.safetensors'))
    light = TextClsHead(class_embeddings=str(tmp_path / 'c.safetensors'))
    x = images(dtype=torch.float32)
    assert (light((x,)) - head((x,))).abs().max() <= 1e-4
    again = TextClsHead(class_embeddings=str(tmp_path / 'c.safetensors'))
    again.load_state_dict(light.state_dict())
    assert torch.equal(again((x,)), light((x,)))


def test_embeddings_from_elsewhere_are_normalised(tmp_path):
    rows = torch.randn(3, 64)
    save_file({'class_embeddings': rows.half()}, str(tmp_path / 'c.safetensors'))
    light = TextClsHead(class_embeddings=str(tmp_path / 'c.safetensors'), logit_scale=10.0)
    texts = rows.half().double()
    texts = texts / texts.norm(dim=1, keepdim=True)
    expected = naive_logits(images(dtype=torch.float32), texts, 10)
    assert (light.class_embeddings() - texts).abs().max() <= 1e-6
    assert (light((images(dtype=torch.float32),)) - expected).abs().max() <= 1e-4


def test_embeddings_of_another_number_of_classes(tmp_path):
    make().save_class_embeddings(str(tmp_path / 'c.safetensors'))
    light = TextClsHead(class_embeddings=str(tmp_path / 'c.safetensors'))
    with pytest.raises(InputError, match='embeddings hold 3 classes, but the dataset has 2'):
        light.set_class_info(ClassInfo(['a', 'b']))


def test_bad_embeddings_files(tmp_path):
    with pytest.raises(InputError, match=r"could not be read from '/nowhere/c\.safetensors' .*save_class_embeddings"):
        TextClsHead(class_embeddings='/nowhere/c.safetensors')
    save_file({'embeddings': torch.zeros(2, 3)}, str(tmp_path / 'other.safetensors'))
    with pytest.raises(InputError, match=r"other\.safetensors' \(KeyError"):
        TextClsHead(class_embeddings=str(tmp_path / 'other.safetensors'))


# Checkpoints


@pytest.mark.parametrize('frozen', [False, True])
def test_a_checkpoint_brings_its_classes(frozen, tmp_path):
    head = make(frozen=frozen, templates=TEMPLATES).eval()
    torch.save({'state_dict': head.state_dict()}, tmp_path / 'head.pth')
    other = make(frozen=frozen, classes=None).eval()
    load_checkpoint(other, str(tmp_path / 'head.pth'), map_location='cpu', strict=True)
    assert torch.equal(other.class_tokens, head.class_tokens)
    x = images(dtype=torch.float32)
    assert torch.equal(other((x,)), head((x,)))


def test_a_checkpoint_brings_its_classes_into_a_classifier(tmp_path):
    def build(**head):
        text = dict(type='mmlt.OpenCLIPText', model=MODEL)
        backbone = dict(type='mmlt.OpenCLIPVision', model=MODEL)
        return MODELS.build(
            dict(type='ImageClassifier', backbone=backbone, head=dict(type='mmlt.TextClsHead', text=text, **head))
        ).eval()

    model = build(classes=CLASSES)
    torch.save({'state_dict': model.state_dict()}, tmp_path / 'model.pth')
    other = build()
    load_checkpoint(other, str(tmp_path / 'model.pth'), map_location='cpu', strict=True)
    x = torch.randn(2, 3, 32, 32)
    expected = torch.stack([s.pred_score for s in model(x, mode='predict')])
    assert torch.equal(torch.stack([s.pred_score for s in other(x, mode='predict')]), expected)
    texts = naive_texts(model.head, TEMPLATES[:1])
    assert (expected - naive_logits(model.backbone(x)[0], texts, 100).softmax(1)).abs().max() <= 1e-4


@pytest.mark.parametrize('classes', [('dog', 'cat', 'cow'), ('dog', 'cat')])
def test_own_classes_win_over_those_of_a_checkpoint(classes):
    head = make(templates=TEMPLATES).eval()
    state = head.state_dict()
    kept = state['class_tokens'].clone()
    other = make(classes=classes).eval()
    other.load_state_dict(state)
    assert torch.equal(state['class_tokens'], kept)
    texts = naive_texts(head, ['a photo of a {}.'], classes)  # own prompts, the checkpoint's weights
    assert (other.class_embeddings() - texts).abs().max() <= 1e-5
    assert torch.equal(other.text.clip.text_projection, head.text.clip.text_projection)


def test_class_names_after_a_checkpoint_win(tmp_path):
    head = make().eval()
    other = make(classes=None).eval()
    other.load_state_dict(head.state_dict())
    other.class_embeddings()
    other.set_class_info(ClassInfo(('dog', 'cat')))
    assert (other.class_embeddings() - naive_texts(head, TEMPLATES[:1], ('dog', 'cat'))).abs().max() <= 1e-5


def test_deepcopy_is_independent():
    head = make(frozen=True)
    x = images(dtype=torch.float32)
    expected = head((x,))
    twin = copy.deepcopy(head)
    twin.set_class_info(ClassInfo(('dog', 'cat')))
    assert twin((x,)).shape == (5, 2)
    assert torch.equal(head((x,)), expected)


# Mixed precision


@pytest.mark.parametrize('frozen', [False, True])
@pytest.mark.parametrize('templates', [TEMPLATES[:1], TEMPLATES])
def test_autocast(frozen, templates):
    head = make(frozen=frozen, templates=templates)
    x = images(dtype=torch.float32)
    expected = naive_loss(naive_logits(x, naive_texts(head, templates), 100), LABELS)
    with torch.autocast('cpu', torch.bfloat16):
        loss = head.loss((x.bfloat16().requires_grad_(),), samples())['loss']
        predictions = head.eval().predict((x.bfloat16(),))
    assert torch.isfinite(loss)
    assert (loss - expected).abs() <= 0.1 * expected
    assert all(bool(torch.isfinite(s.pred_score).all()) for s in predictions)
    loss.backward()
    if not frozen:
        gradients = [p.grad for p in head.parameters() if p.requires_grad]
        assert all(bool(torch.isfinite(g).all()) for g in gradients)


def test_autocast_does_not_round_the_logits():
    """Logits of 100 * cosine in bfloat16 come in steps of up to 0.5, which makes near classes equal."""
    head = make(frozen=True)
    x = images(64, dtype=torch.float32)
    with torch.autocast('cpu', torch.bfloat16):
        logits = head((x,))
    assert (logits - head((x,))).abs().max() <= 0.05


def test_cached_texts_do_not_keep_the_rounding_of_autocast():
    """A run's own validation of frozen texts and a later test of its checkpoint agree."""
    head = make(frozen=True, templates=TEMPLATES)
    with torch.autocast('cpu', torch.bfloat16):
        head.loss((images(dtype=torch.float32),), samples())
    later = make(frozen=True, templates=TEMPLATES)
    later.load_state_dict(head.state_dict())
    x = images(dtype=torch.float32)
    assert (head.eval()((x,)) - later.eval()((x,))).abs().max() <= 1e-3


# What cannot be used


def test_no_classes():
    head = make(classes=None)
    with pytest.raises(InputError, match=r'does not know the classes: add .*ClassInfoHook.*classes=\[\.\.\.\]'):
        head((images(dtype=torch.float32),))
    with pytest.raises(InputError, match='does not know the classes'):
        head.eval().predict((images(dtype=torch.float32),))


def test_neither_or_both_sources_of_texts():
    with pytest.raises(InputError, match=r'either a text tower \(text=\.\.\.\) or class_embeddings=<file>'):
        TextClsHead()
    with pytest.raises(InputError, match='either a text tower'):
        make(class_embeddings='file.safetensors')


def test_bad_prompt_mode():
    with pytest.raises(InputError, match="prompt_mode is 'mean'; choose 'ensemble' or 'random'"):
        make(prompt_mode='mean')


def test_pretrained_scale_without_a_tower(tmp_path):
    make().save_class_embeddings(str(tmp_path / 'c.safetensors'))
    with pytest.raises(InputError, match="logit_scale='pretrained' needs a text tower"):
        TextClsHead(class_embeddings=str(tmp_path / 'c.safetensors'), logit_scale='pretrained')


def test_features_of_another_width():
    with pytest.raises(InputError, match='image features are 32 wide and the texts 64: backbone and text'):
        make()((torch.randn(2, 32),))

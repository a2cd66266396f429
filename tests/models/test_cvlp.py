"""Class-wise pretraining: the drawn sentences, the mixed losses, the teacher, and what is refused."""

import copy
import math

import numpy as np
import open_clip
import pytest
import torch
import torch.nn.functional as F
from mmengine.model import ExponentialMovingAverage
from mmpretrain.registry import MODELS
from mmpretrain.structures import DataSample

from mmlt import InputError
from mmlt.models import pretrainers
from mmlt.models.pretrainers import cvlp as cvlp_module
from mmlt.utils.class_info import ClassInfo

MODEL = 'mmlt-tiny-vit'
CLASSES = ('apple', 'pear', 'plum')
TEXTS = [['an apple', 'a red apple', 'apples on a tree'], ['a pear'], ['a plum', 'one plum', 'two plums', 'blue plums']]
LABELS = [0, 2, 1, 0, 2, 2]


@pytest.fixture(scope='module')
def teacher_file(tmp_path_factory):
    """Weights of another tiny open_clip model."""
    from safetensors.torch import save_file

    torch.manual_seed(77)
    path = tmp_path_factory.mktemp('teacher') / 'teacher.safetensors'
    save_file({k: v.contiguous() for k, v in open_clip.create_model(MODEL).state_dict().items()}, str(path))
    return str(path)


@pytest.fixture
def make(clip_file, teacher_file):
    """Build a CVLP with read weights that knows the texts of three classes."""

    def build(distill=True, texts=TEXTS, known=True, **kwargs):
        towers = {
            key: dict(type=f'mmlt.{name}', model=MODEL, pretrained=clip_file)
            for key, name in (('backbone', 'OpenCLIPVision'), ('text', 'OpenCLIPText'))
        }
        if distill:
            kwargs.setdefault('teacher', dict(model=MODEL, pretrained=teacher_file))
        else:
            kwargs.setdefault('loss_ratio', 1)
        corpus = dict(type='mmlt.ClassTexts', templates=None)
        model = MODELS.build(dict(type='mmlt.CVLP', **towers, texts=corpus, **{'seed': 3, **kwargs}))
        model.init_weights()
        if known:
            model.set_class_info(ClassInfo(CLASSES, [6, 3, 1], texts))
        return model

    return build


def samples(labels=LABELS):
    return [DataSample().set_gt_label(y) for y in labels]


def flat():
    return [s for own in TEXTS for s in own]


def draw(model, labels=LABELS, steps=1, start=0):
    """Drawn rows of several steps."""
    rows = []
    for step in range(start, start + steps):
        model.steps.fill_(step)
        rows.append(model.draw_sentences(torch.tensor(labels)))
    return torch.stack(rows)


# Draws


def test_draws_are_sentences_of_the_class(make):
    rows = draw(make(distill=False), steps=50)
    labels = torch.tensor([0] * 3 + [1] + [2] * 4)
    assert torch.equal(labels[rows], torch.tensor(LABELS).expand(50, -1))


def test_every_sentence_of_a_class_is_equally_likely(make):
    model = make(distill=False)
    times = torch.bincount(draw(model, [0] * 30 + [1] * 2 + [2] * 40, steps=100).flatten(), minlength=8)
    assert times[3] == 200
    # 1000 each: standard deviation 26 and 27
    assert (times[:3] - 1000).abs().max() < 110 and (times[4:] - 1000).abs().max() < 110


def test_draws_follow_seed_and_step(make):
    a, b, other = make(distill=False), make(distill=False), make(distill=False, seed=4)
    labels = [2] * 20
    assert torch.equal(draw(a, labels, 5), draw(b, labels, 5))
    assert not torch.equal(draw(a, labels, 5), draw(other, labels, 5))
    assert len({tuple(row.tolist()) for row in draw(a, labels, 5)}) == 5


def test_draws_do_not_touch_the_random_state(make):
    model = make(distill=False)
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    draw(model, steps=3)
    assert torch.equal(torch.rand(1), expected)


@pytest.mark.parametrize('world_size', [2, 4])
def test_several_processes_draw_as_one(make, monkeypatch, world_size):
    """Sample k of rank r is sample k W + r of the global batch, as the samplers share them out."""
    model = make(distill=False)
    labels = torch.tensor([2, 0, 2, 2, 1, 0, 2, 0])
    model.steps.fill_(5)
    expected = model.draw_sentences(labels)
    actual = torch.empty_like(expected)
    for rank in range(world_size):
        monkeypatch.setattr(cvlp_module, 'get_dist_info', lambda rank=rank: (rank, world_size))
        actual[rank::world_size] = model.draw_sentences(labels[rank::world_size])
    assert torch.equal(actual, expected)


def test_steps_are_counted_and_saved(make):
    model = make(distill=False)
    images = torch.randn(6, 3, 32, 32)
    drawn = []
    model.draw_sentences = lambda labels, inner=model.draw_sentences: drawn.append(inner(labels)) or drawn[-1]
    for _ in range(4):
        model(images, samples(), mode='loss')
    resumed = make(distill=False)
    resumed.load_state_dict({**model.state_dict(), 'steps': torch.tensor(2)})
    for step in (2, 3):
        assert torch.equal(resumed.draw_sentences(torch.tensor(LABELS)), drawn[step])
        resumed(images, samples(), mode='loss')
    assert int(model.steps) == int(resumed.steps) == 4
    assert 'steps' in model.state_dict()


def test_seed_is_by_default_that_of_the_run(make):
    torch.manual_seed(31)
    first = make(distill=False, seed=None)
    assert first.seed == 31


# Losses


def expected_losses(model, images, labels, teacher=None):
    """Both losses from open_clip's own towers, naively, for the step the model is at."""
    rows = model.draw_sentences(torch.tensor(labels))
    tokens = open_clip.get_tokenizer(MODEL)([flat()[i] for i in rows])

    def unit(x):
        return x / x.norm(dim=-1, keepdim=True)

    image, text = unit(model.backbone.visual(images)), unit(model.text.clip.encode_text(tokens))
    scale = model.text.clip.logit_scale.exp()
    logits = scale * image @ text.t()
    same = torch.tensor([[float(a == b) for b in labels] for a in labels])
    targets = same / same.sum(1, keepdim=True)
    ccl = -((targets * logits.log_softmax(1)).sum(1) + (targets * logits.t().log_softmax(1)).sum(1)).mean()
    if teacher is None:
        return ccl, None
    with torch.no_grad():
        theirs = unit(teacher.encode_image(images)) @ unit(teacher.encode_text(tokens)).t() * scale
    distill = 0
    for own, target in ((logits, theirs), (logits.t(), theirs.t())):
        distill = distill - (target.softmax(1) * own.log_softmax(1)).diagonal().mean()
    return ccl, distill


@pytest.mark.parametrize('ratio', [0.5, 0.2])
def test_losses_are_mixed(make, teacher_file, ratio):
    model = make(loss_ratio=ratio)
    teacher = open_clip.create_model(MODEL, pretrained=teacher_file).eval()
    images = torch.randn(6, 3, 32, 32)
    for _ in range(2):  # other sentences in the second step
        ccl, distill = expected_losses(model, images, LABELS, teacher)
        losses = model(images, samples(), mode='loss')
        assert set(losses) == {'loss_ccl', 'loss_distill', 'logit_scale'}
        assert losses['loss_ccl'].item() == pytest.approx(ratio * ccl.item(), rel=1e-4)
        assert losses['loss_distill'].item() == pytest.approx((1 - ratio) * distill.item(), rel=1e-4)
    parameters = dict(model.named_parameters())
    actual = torch.autograd.grad(losses['loss_ccl'] + losses['loss_distill'], list(parameters.values()))
    expected = torch.autograd.grad(ratio * ccl + (1 - ratio) * distill, list(parameters.values()))
    largest = max(b.abs().max() for b in expected)
    for name, a, b in zip(parameters, actual, expected):
        assert (a - b).abs().max() <= 1e-4 * largest, name


def test_total_loss_leaves_the_logit_scale_out(make):
    model = make()
    losses = model(torch.randn(6, 3, 32, 32), samples(), mode='loss')
    total, logged = model.parse_losses(losses)
    assert total == losses['loss_ccl'] + losses['loss_distill']
    assert logged['logit_scale'].item() == pytest.approx(1 / 0.07, rel=1e-5)


def test_without_distillation(make):
    model = make(distill=False)
    images = torch.randn(6, 3, 32, 32)
    expected, _ = expected_losses(model, images, LABELS)
    losses = model(images, samples(), mode='loss')
    assert 'loss_distill' not in losses
    assert losses['loss_ccl'].item() == pytest.approx(expected.item(), rel=1e-4)


def test_published_form_and_fixed_teacher_temperature(make, clip_file, teacher_file):
    model = make(
        teacher_temperature=0.02,
        loss=dict(type='mmlt.CCLLoss', form='mean', label_smoothing=0.1),
        distill_loss=dict(type='mmlt.ImageTextDistillLoss', form='full'),
    )
    teacher = open_clip.create_model(MODEL, pretrained=teacher_file).eval()
    images = torch.randn(6, 3, 32, 32)
    tokens = open_clip.get_tokenizer(MODEL)([flat()[i] for i in model.draw_sentences(torch.tensor(LABELS))])
    with torch.no_grad():
        own, theirs = (
            F.normalize(clip.encode_image(images), dim=-1) @ F.normalize(clip.encode_text(tokens), dim=-1).t()
            for clip in (open_clip.create_model(MODEL, pretrained=clip_file).eval(), teacher)
        )
    own, theirs = own / 0.07, theirs / 0.02
    distill = sum(-(t.softmax(1) * o.log_softmax(1)).sum(1).mean() for o, t in ((own, theirs), (own.t(), theirs.t())))
    same = torch.tensor([[float(a == b) for b in LABELS] for a in LABELS])
    targets = 0.9 * same / same.sum(1, keepdim=True) + 0.1 / 6
    ccl = sum(-(targets * o.log_softmax(1)).sum(1).mean() for o in (own, own.t()))
    losses = model(images, samples(), mode='loss')
    assert losses['loss_ccl'].item() == pytest.approx(ccl.item() / 4, rel=1e-4)
    assert losses['loss_distill'].item() == pytest.approx(distill.item() / 4, rel=1e-4)


def test_the_teachers_own_temperature(make, teacher_file):
    """As in the published code, also where the learned one has moved away from it."""
    own, fixed = make(teacher_temperature='own'), make(teacher_temperature=1 / 33.0)
    with torch.no_grad():
        own.teacher.text.clip.logit_scale.fill_(math.log(33.0))
    images = torch.randn(6, 3, 32, 32)
    found, expected = (m(images, samples(), mode='loss')['loss_distill'].item() for m in (own, fixed))
    assert found == pytest.approx(expected, rel=1e-6)
    assert found != pytest.approx(make()(images, samples(), mode='loss')['loss_distill'].item(), rel=1e-3)


def test_an_unknown_temperature_is_refused(make):
    with pytest.raises(InputError, match="'owned'"):
        make(teacher_temperature='owned')


# The teacher


def test_teacher_is_no_part_of_the_model(make):
    with_teacher, without = make(), make(distill=False)
    assert set(with_teacher.state_dict()) == set(without.state_dict())
    assert len(list(with_teacher.parameters())) == len(list(without.parameters()))
    assert not any(m is with_teacher.teacher for m in with_teacher.modules())
    assert not any(p.requires_grad for p in with_teacher.teacher.parameters())


def test_teacher_starts_from_its_own_file_and_stays(make, teacher_file):
    model = make()
    images = torch.randn(6, 3, 32, 32)
    expected = open_clip.create_model(MODEL, pretrained=teacher_file).eval()
    losses = model.train()(images, samples(), mode='loss')
    (losses['loss_ccl'] + losses['loss_distill']).backward()
    torch.optim.SGD(model.parameters(), lr=1.0).step()
    assert not model.teacher.training and not model.teacher.backbone.visual.training
    with torch.no_grad():
        expected = F.normalize(expected.encode_image(images), dim=-1)
        assert torch.allclose(model.teacher.encode(images), expected, atol=1e-6)
        assert not torch.allclose(F.normalize(model.backbone(images)[-1], dim=-1), expected, atol=1e-2)


def test_sentences_of_the_teacher_are_encoded_once(make, teacher_file):
    model = make()
    seen = []
    model.teacher.text.register_forward_hook(lambda module, args, out: seen.append(len(args[0])))
    assert model.teacher.sentences is None
    for _ in range(3):
        model(torch.randn(6, 3, 32, 32), samples(), mode='loss')
    assert seen == [8]
    teacher = open_clip.create_model(MODEL, pretrained=teacher_file).eval()
    with torch.no_grad():
        expected = F.normalize(teacher.encode_text(open_clip.get_tokenizer(MODEL)(flat())), dim=-1)
    assert (model.teacher.sentences - expected).abs().max() <= 1e-5


def test_other_texts_are_encoded_anew(make):
    """A run that goes on to a test is told its classes twice; other texts must not meet the old features."""
    model = make()
    images = torch.randn(6, 3, 32, 32)
    model(images, samples(), mode='loss')
    model.set_class_info(ClassInfo(CLASSES, None, [['x y'], ['z', 'w'], ['v', 'u', 't']]))
    model(images, samples(), mode='loss')
    assert len(model.teacher.sentences) == 6


def test_copies_for_an_averaged_model(make):
    model = make()
    images = torch.randn(6, 3, 32, 32)
    model(images, samples(), mode='loss')
    again = copy.deepcopy(model)
    a, b = (m(images, samples(), mode='loss') for m in (model, again))
    assert all(torch.equal(a[k], b[k]) for k in a)
    average = ExponentialMovingAverage(model, momentum=0.5)
    with torch.no_grad():
        model.text.clip.logit_scale += 1
    average.update_parameters(model)
    average.update_parameters(model)
    assert int(average.module.steps) == int(model.steps)
    assert len(average.module(images, samples(), mode='predict')) == 6


# Temperature and prediction


def test_temperature_starts_where_it_is_told(make, clip_file):
    assert make(distill=False).text.logit_scale.item() == pytest.approx(1 / 0.07, rel=1e-6)
    assert make(distill=False, init_temperature=0.02).text.logit_scale.item() == pytest.approx(50, rel=1e-6)
    model = make(distill=False, init_temperature=None)
    own = open_clip.create_model(MODEL, pretrained=clip_file).logit_scale
    assert torch.equal(model.text.clip.logit_scale, own)
    assert model.text.clip.logit_scale.requires_grad
    assert math.isclose(own.exp().item(), 1 / 0.07, rel_tol=1e-5)


def test_prediction_is_zero_shot(make, clip_file):
    model = make(templates='a photo of the {}').eval()
    images = torch.randn(5, 3, 32, 32)
    clip = open_clip.create_model(MODEL, pretrained=clip_file).eval()
    tokens = open_clip.get_tokenizer(MODEL)([f'a photo of the {c}' for c in CLASSES])
    with torch.no_grad():
        image, text = (F.normalize(x, dim=-1) for x in (clip.encode_image(images), clip.encode_text(tokens)))
        expected = (image @ text.t() / 0.07).softmax(1)
        out = model(images, samples([0] * 5), mode='predict')
    assert (torch.stack([s.pred_score for s in out]) - expected).abs().max() <= 1e-5
    assert int(model.steps) == 0
    assert torch.equal(model(images)[-1], model.backbone.visual(images))


def test_bfloat16_training_step(make):
    model = make()
    with torch.autocast('cpu', torch.bfloat16):
        losses = model(torch.randn(6, 3, 32, 32), samples(), mode='loss')
    assert losses['loss_ccl'].dtype == losses['loss_distill'].dtype == torch.float32
    (losses['loss_ccl'] + losses['loss_distill']).backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


def test_prompts_alone_are_texts_too(make):
    model = make(distill=False, texts=None, known=False)
    with pytest.raises(InputError, match="3 of 3 classes have no text: 'apple', 'pear', 'plum'"):
        model.set_class_info(ClassInfo(CLASSES))
    model.corpus.templates = 'clip'
    model.set_class_info(ClassInfo(CLASSES))
    assert model.table.sentences == [[f'a photo of a {c}.'] for c in CLASSES]


# Bad input


@pytest.mark.parametrize(
    'kwargs, sentence',
    [
        (dict(loss_ratio=0.5), r'loss_ratio=0\.5 asks for distillation, but there is no teacher: give teacher=dict'),
        (dict(), r'loss_ratio=0\.5 asks for distillation'),
        (
            dict(loss_ratio=1, teacher=dict(model=MODEL, pretrained=None)),
            'loss_ratio=1 leaves nothing for the teacher to do',
        ),
        (dict(loss_ratio=0), r'loss_ratio is 0; it is the share of the contrastive loss, above 0 and at most 1'),
        (dict(loss_ratio=1.5), r'loss_ratio is 1\.5; it is the share'),
    ],
)
def test_ratio_and_teacher_must_agree(kwargs, sentence):
    towers = {
        k: dict(type=f'mmlt.{n}', model=MODEL) for k, n in (('backbone', 'OpenCLIPVision'), ('text', 'OpenCLIPText'))
    }
    with pytest.raises(InputError, match=sentence):
        pretrainers.CVLP(**towers, **kwargs)


def test_training_without_texts(make):
    with pytest.raises(InputError, match=r"does not know the classes' texts: add dict\(type='mmlt.ClassInfoHook'\)"):
        make(distill=False, known=False)(torch.randn(6, 3, 32, 32), samples(), mode='loss')


@pytest.mark.parametrize(
    ('label', 'sentence'), [(3, 'a label 3, but 3 classes have texts'), (-1, 'a label -1: .* leave it out')]
)
def test_label_outside_the_classes(make, label, sentence):
    with pytest.raises(InputError, match=f'There is {sentence}'):
        make(distill=False).draw_sentences(torch.tensor([0, label]))


def test_class_without_text(make):
    model = make(distill=False, known=False)
    with pytest.raises(InputError, match="1 of 3 classes have no text: 'pear'"):
        model.set_class_info(ClassInfo(CLASSES, None, [['a b'], [], ['c d']]))


def test_draws_of_a_large_corpus_stay_in_their_class(make):
    """The largest possible draw must not round up into the next class."""
    model = make(distill=False)
    model.table.counts = torch.tensor([3, 10**6, 7])
    model.table.tokens = None

    class Largest:
        def random(self, size):
            return np.full(size, np.nextafter(1, 0))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cvlp_module.np.random, 'default_rng', lambda seed: Largest())
        rows = model.draw_sentences(torch.tensor([0, 1, 2]))
    assert rows.tolist() == [2, 10**6 + 2, 10**6 + 9]

"""The cosine head: its formula, and where its class vectors begin."""

import math

import open_clip
import pytest
import torch
from mmpretrain.registry import MODELS
from mmpretrain.structures import DataSample

from mmlt import InputError
from mmlt.models import CosineClsHead, OpenCLIPVision
from mmlt.models.heads.cosine_cls_head import before_projection, centred
from mmlt.models.open_clip_towers import open_clip_load_checkpoint
from mmlt.utils.class_info import ClassInfo

VIT, RN = 'mmlt-tiny-vit', 'mmlt-tiny-rn'
CLASSES = ('apple', 'pear', 'plum')
TEMPLATES = ['a photo of a {}.', 'a drawing of the {}']


@pytest.fixture(autouse=True)
def _other_seed(_fresh_state):
    torch.manual_seed(1)  # with the seed of clip_file a random model would have its weights


def text(clip_file=None, model=VIT):
    return dict(type='mmlt.OpenCLIPText', model=model, pretrained=clip_file)


def built(clip_file=None, num_classes=3, in_channels=64, **kwargs):
    kwargs.setdefault('text', text(clip_file))
    return MODELS.build(dict(type='mmlt.CosineClsHead', num_classes=num_classes, in_channels=in_channels, **kwargs))


def dot(a, b):
    return sum(x * y for x, y in zip(a, b))


def unit(v):
    return [x / math.sqrt(dot(v, v)) for x in v]


def naive_centred(rows):
    rows = [unit(r) for r in rows]
    mean = [sum(column) / len(rows) for column in zip(*rows)]
    return [unit([x - m for x, m in zip(r, mean)]) for r in rows]


def naive_start(clip_file, templates, centre):
    """Class vectors by open_clip's own encoder, in float64 by sums."""
    clip = open_clip.create_model(VIT).eval()
    open_clip_load_checkpoint(clip, clip_file)
    tokenizer = open_clip.get_tokenizer(VIT)
    rows = []
    for name in CLASSES:
        features = [clip.encode_text(tokenizer([t.format(name)]))[0].double().tolist() for t in templates]
        rows.append(unit([sum(column) for column in zip(*[unit(f) for f in features])]))
    if centre:
        rows = naive_centred(rows)
    return [unit([dot(p, r) for p in clip.visual.proj.double().tolist()]) for r in rows]


def test_logits():
    head, x = built(init='random', in_channels=4, logit_scale=7.0), torch.randn(5, 4)
    with torch.no_grad():
        head.weight.mul_(3)  # lengths do not matter
    for row, f in zip(head((x,)), x.double().tolist()):
        for z, w in zip(row, head.weight.double().tolist()):
            assert z.item() == pytest.approx(7 * dot(unit(f), unit(w)), abs=1e-5)
    assert CosineClsHead(2, 4, init='random').logit_scale == 25


def test_centred_and_before_projection():
    t, p = torch.randn(3, 4, dtype=torch.float64) + 0.5, torch.randn(5, 4, dtype=torch.float64)
    assert (centred(t) - torch.tensor(naive_centred(t.tolist()), dtype=t.dtype)).abs().max() <= 1e-12
    expected = torch.tensor([unit([dot(row, c) for row in p.tolist()]) for c in t.tolist()], dtype=t.dtype)
    assert (before_projection(t, p) - expected).abs().max() <= 1e-12
    f = torch.randn(2, 5, dtype=torch.float64)  # the order of the classes is that of the projected features
    lengths = (t @ p.t()).norm(dim=1)
    assert torch.allclose(f @ before_projection(t, p).t() * lengths, f @ p @ t.t())


@pytest.mark.parametrize('centre', [False, True])
@pytest.mark.parametrize('templates', [TEMPLATES[:1], TEMPLATES])
def test_starts_from_texts(clip_file, templates, centre):
    head = built(clip_file, templates=templates, centre=centre)
    head.set_class_info(ClassInfo(CLASSES))
    head.init_weights()
    with torch.no_grad():
        expected = torch.tensor(naive_start(clip_file, templates, centre))
    assert (head.weight - expected).abs().max() <= 1e-5


def test_projected_features_get_the_texts_themselves(clip_file):
    head = built(clip_file, projected=True, templates=TEMPLATES[0])
    head.set_class_info(ClassInfo(CLASSES))
    head.init_weights()
    clip = open_clip.create_model(VIT).eval()
    open_clip_load_checkpoint(clip, clip_file)
    tokens = open_clip.get_tokenizer(VIT)([TEMPLATES[0].format(c) for c in CLASSES])
    assert torch.allclose(head.weight, clip.encode_text(tokens, normalize=True), atol=1e-5)


def test_backbone_of_the_same_load_keeps_its_weights(clip_file):
    """The text tower's loader may share the image tower; reading twice must not change it."""
    model = MODELS.build(
        dict(
            type='ImageClassifier',
            backbone=dict(type='mmlt.OpenCLIPVision', model=VIT, pretrained=clip_file, projection=False),
            head=dict(type='mmlt.CosineClsHead', num_classes=3, in_channels=64, text=text(clip_file)),
        )
    )
    model.head.set_class_info(ClassInfo(CLASSES))
    model.init_weights()
    alone = OpenCLIPVision(VIT, clip_file)
    alone.init_weights()
    assert all(torch.equal(v, model.backbone.visual.state_dict()[k]) for k, v in alone.visual.state_dict().items())
    assert (model.head.weight - torch.tensor(naive_start(clip_file, ['a photo of a {}.'], False))).abs().max() <= 1e-5


def test_no_text_tower_stays(clip_file):
    head = built(clip_file)
    head.set_class_info(ClassInfo(CLASSES))
    head.init_weights()
    assert set(head.state_dict()) == {'weight'} == {n for n, _ in head.named_parameters()}
    assert [type(m).__name__ for m in head.modules()] == ['CosineClsHead', 'CrossEntropyLoss']


def test_checkpoint_needs_no_text_tower(clip_file, monkeypatch):
    head = built(clip_file)
    head.set_class_info(ClassInfo(CLASSES))
    head.init_weights()
    monkeypatch.setattr('mmlt.models.heads.cosine_cls_head.TextClsHead', None)
    other = built('no/such/file.safetensors')
    other.set_class_info(ClassInfo(CLASSES))
    other.load_state_dict(head.state_dict())
    x = torch.randn(2, 64)
    assert torch.equal(other((x,)), head((x,)))


def test_classes_may_come_later(clip_file):
    """A test without checkpoint reads the weights before the dataset tells the classes."""
    first, later = built(clip_file), built(clip_file)
    first.set_class_info(ClassInfo(CLASSES))
    first.init_weights()
    later.init_weights()
    with pytest.raises(InputError, match="does not know the classes: add dict.*ClassInfoHook.*init='random'"):
        later((torch.randn(1, 64),))
    later.set_class_info(ClassInfo(CLASSES))
    assert torch.equal(later.weight, first.weight)
    reset = built(clip_file)
    reset.init_weights()
    reset.load_state_dict(first.state_dict())
    reset((torch.randn(1, 64),))


def test_random_start():
    torch.manual_seed(5)
    first = CosineClsHead(3, 8, init='random')
    assert torch.allclose(first.weight.norm(dim=1), torch.ones(3))
    before = first.weight.clone()
    first.set_class_info(ClassInfo(CLASSES))
    first.init_weights()
    assert torch.equal(first.weight, before)


def test_loss_is_logit_adjusted():
    head = built(init='random', in_channels=4, loss=dict(type='mmlt.LogitAdjustedLoss'))
    counts = [6, 3, 1]
    for module in head.modules():
        if hasattr(module, 'set_class_info'):
            module.set_class_info(ClassInfo(CLASSES, counts))
    x, labels = torch.randn(4, 4), [0, 2, 1, 1]
    loss = head.loss((x,), [DataSample().set_gt_label(y) for y in labels])['loss']
    expected = 0
    for row, y in zip(head((x,)).double().tolist(), labels):
        raised = [z + math.log(n / 10) for z, n in zip(row, counts)]
        expected += math.log(sum(math.exp(z) for z in raised)) - raised[y]
    assert loss.item() == pytest.approx(expected / 4, abs=1e-5)
    loss.backward()
    assert head.weight.grad.abs().max() > 0


def test_single_precision_under_autocast():
    head, x = built(init='random', in_channels=16), torch.randn(3, 16)
    with torch.autocast('cpu', torch.bfloat16):
        assert torch.equal(head((x,)), head((x,)).float())
        logits = head((x,))
    assert (logits - head((x,))).abs().max() <= 1e-5


@pytest.mark.parametrize(
    ('options', 'match'),
    [
        (dict(init='mean'), "init is 'mean'; choose 'text', 'class_means' or 'random'"),
        (dict(text=None), 'has no text tower: give model.head.text='),
        (dict(logit_scale=0), 'logit_scale is 0; it must be positive'),
    ],
)
def test_bad_options_are_refused(options, match):
    with pytest.raises(InputError, match=match):
        built(**options)


def test_wrong_numbers_and_widths_are_refused(clip_file):
    with pytest.raises(InputError, match='num_classes=3, but the dataset has 2 classes: set model.head.num_classes=2'):
        built(clip_file).set_class_info(ClassInfo(CLASSES[:2]))
    head = built(clip_file, in_channels=32)
    head.set_class_info(ClassInfo(CLASSES))
    with pytest.raises(InputError, match="texts are 64 wide and the head's in_channels is 32: set .*in_channels=64"):
        head.init_weights()
    with pytest.raises(InputError, match='features are 8 wide and the head expects 32'):
        built(clip_file, in_channels=32)((torch.randn(1, 8),))
    head = built(text=text(model=RN), in_channels=128)
    head.set_class_info(ClassInfo(CLASSES))
    with pytest.raises(InputError, match=f"tower of '{RN}' has no projection of its own .* set model.head.projected=T"):
        head.init_weights()

"""The text tower: open_clip's values with and without short cuts, for causal and other towers."""

import copy

import open_clip
import pytest
import torch
from mmpretrain.registry import MODELS
from open_clip.coca_model import CoCa
from open_clip.model import CustomTextCLIP

from mmlt.models import OpenCLIPText, OpenCLIPVision

MODEL = 'mmlt-tiny-vit'
TEXTS = ['a photo of a cat.', 'a photo of a very big polar bear.', 'a dog', 'a photo of a cat.']


def register(monkeypatch, name, text=None, **config):
    """A variant of the tiny model under a name of its own, for one test."""
    tiny = open_clip.get_model_config(MODEL)
    tiny['text_cfg'].update(text or {})
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, name, {**tiny, **config})
    return name


@pytest.fixture
def siglip(monkeypatch):
    text = dict(no_causal_mask=True, proj_bias=True, pool_type='last')
    return register(monkeypatch, 'tiny-bidirectional', text, custom_text=True, init_logit_bias=-10.0)


def reference(text):
    """open_clip's own model with the text weights of a tower."""
    clip = open_clip.create_model(text._towers.model).double().eval()
    missing, unexpected = clip.load_state_dict(text.clip.state_dict(), strict=False)
    assert not unexpected and all(k.startswith('visual') for k in missing)
    return clip


def gradients(module, out):
    module.zero_grad(set_to_none=True)
    weight = torch.randn(out.shape, dtype=out.dtype, generator=torch.Generator().manual_seed(1))
    (out * weight).sum().backward()
    return {n: p.grad for n, p in module.named_parameters() if p.grad is not None and not n.startswith('visual')}


@pytest.mark.parametrize('custom', [False, True])
@pytest.mark.parametrize('shorten', [True, False])
def test_values_and_gradients_are_open_clips(monkeypatch, custom, shorten):
    text = OpenCLIPText(register(monkeypatch, 'tiny', custom_text=custom), shorten=shorten).double()
    assert text.shorten == shorten
    assert text.out_channels == 64
    clip = reference(text)
    assert isinstance(clip, CustomTextCLIP) == custom
    tokens = text.tokenize(TEXTS)
    out, expected = text(tokens), clip.encode_text(tokens)
    assert out.shape == (4, 64)
    assert (out - expected).abs().max() <= 1e-11
    actual, expected = gradients(text.clip, out), gradients(clip, expected)
    trained = {n for n, p in text.clip.named_parameters() if p.requires_grad}
    assert actual.keys() == expected.keys() == trained
    for name, gradient in expected.items():
        assert (actual[name] - gradient).abs().max() <= 1e-11 * max(1, gradient.abs().max()), name


def test_a_siglip_tower_runs_in_full(siglip):
    text = OpenCLIPText(siglip).double()
    assert not text.shorten
    clip = reference(text)
    tokens = text.tokenize(TEXTS)
    assert torch.equal(text(tokens), clip.encode_text(tokens))
    # Padding counts here: cutting it would be wrong.
    longer = tokens.clone()
    longer[:, -1] = 5
    assert (text(longer) - text(tokens)).abs().max() > 1e-3


def test_a_coca_tower_is_not_normalised(monkeypatch):
    multimodal = dict(context_length=16, vocab_size=49408, width=64, heads=2, layers=1, attn_pooler_heads=2)
    name = register(
        monkeypatch,
        'tiny-coca',
        text=dict(embed_cls=True, output_tokens=True),
        custom_text=True,
        multimodal_cfg=multimodal,
        vision_cfg={
            **open_clip.get_model_config(MODEL)['vision_cfg'],
            'attentional_pool': True,
            'attn_pooler_heads': 2,
            'output_tokens': True,
        },
    )
    vision, text = OpenCLIPVision(name).eval(), OpenCLIPText(name).eval()
    clip = text._towers.clip
    assert isinstance(clip, CoCa)
    images = torch.randn(2, 3, 32, 32)
    assert torch.equal(vision(images)[0], clip.encode_image(images, normalize=False))
    tokens = text.tokenize(TEXTS)
    assert torch.equal(text(tokens), clip.encode_text(tokens, normalize=False))


def test_output_is_not_normalised():
    text = OpenCLIPText(MODEL)
    assert (text(text.tokenize(TEXTS)).norm(dim=-1) - 1).abs().min() > 1e-2


def test_tokens_are_those_of_open_clip():
    text = OpenCLIPText(MODEL)
    tokens = text.tokenize(TEXTS)
    assert tokens.shape == (4, 16)
    assert torch.equal(tokens, open_clip.get_tokenizer(MODEL)(TEXTS))
    assert torch.equal(text.tokenize(TEXTS[::-1]), tokens.flip(0))


def test_every_text_is_tokenised_once(monkeypatch):
    text = OpenCLIPText(MODEL)
    seen = []
    tokenizer = text.tokenizer
    monkeypatch.setattr(text, 'tokenizer', lambda texts: seen.extend(texts) or tokenizer(texts))
    text.tokenize(TEXTS)
    text.tokenize([TEXTS[2], 'new', TEXTS[0]])
    text.tokenize(['new'])
    assert seen == [*TEXTS[:3], 'new']


def test_long_captions_are_cut_as_open_clip_does():
    text = OpenCLIPText(MODEL)
    caption = 'cat ' * 40
    tokens = text.tokenize([caption])
    assert torch.equal(tokens, open_clip.get_tokenizer(MODEL)([caption]))
    assert tokens[0, -1] == tokens.max()


def test_frozen():
    text = OpenCLIPText(MODEL, frozen=True)
    for mode in (None, True, False, True):
        if mode is not None:
            text.train(mode)
        assert not any(m.training for m in text.clip.modules())
    assert not any(p.requires_grad for p in text.parameters())
    assert not text(text.tokenize(TEXTS)).requires_grad


def test_trained():
    text = OpenCLIPText(MODEL)
    assert all(m.training for m in text.modules())
    assert not any(m.training for m in text.eval().modules())
    text(text.tokenize(TEXTS)).sum().backward()
    assert [n for n, p in text.named_parameters() if p.grad is None] == ['clip.logit_scale']
    with torch.no_grad():
        assert not text(text.tokenize(TEXTS)).requires_grad


@pytest.mark.parametrize('custom', [False, True])
@pytest.mark.parametrize('shorten', [False, True])
def test_gradient_checkpointing_gives_the_same(monkeypatch, custom, shorten):
    name = register(monkeypatch, 'tiny', custom_text=custom)
    saving, plain = (OpenCLIPText(name, grad_checkpointing=g, shorten=shorten).double() for g in (True, False))
    plain.load_state_dict(saving.state_dict())
    transformer = saving.clip.text.transformer if custom else saving.clip.transformer
    assert transformer.grad_checkpointing
    calls = []
    transformer.resblocks[0].mlp.register_forward_pre_hook(lambda *args: calls.append(1))
    tokens = plain.tokenize(TEXTS)
    outs = [text(tokens) for text in (plain, saving)]
    assert (outs[0] - outs[1]).abs().max() <= 1e-12
    forward = len(calls)
    expected, actual = gradients(plain, outs[0]), gradients(saving, outs[1])
    assert len(calls) == 2 * forward > 0
    assert actual.keys() == expected.keys()
    for name, gradient in expected.items():
        assert (actual[name] - gradient).abs().max() <= 1e-11 * max(1, gradient.abs().max()), name


def test_logit_scale():
    text = OpenCLIPText(MODEL)
    assert text.logit_scale.ndim == 0
    assert not text.logit_scale.requires_grad
    assert text.logit_scale.item() == pytest.approx(1 / 0.07, rel=1e-6)  # CLIP's initial value
    text.clip.logit_scale.data.fill_(4.0)
    assert text.logit_scale.item() == pytest.approx(54.59815, rel=1e-6)
    text.clip.logit_scale.data.fill_(5.0)
    assert text.logit_scale.item() == pytest.approx(100)


def test_built_by_name_and_filled(clip_file):
    torch.manual_seed(1)
    text = MODELS.build(dict(type='mmlt.OpenCLIPText', model=MODEL, pretrained=clip_file))
    assert text.clip.text_projection.isnan().all()
    text.init_weights()
    assert not any(p.isnan().any() for p in text.parameters())


def test_init_cfg_comes_after_the_pretrained_weights(clip_file):
    init_cfg = dict(type='Constant', layer='LayerNorm', val=0.5, bias=0.25)
    text, plain = OpenCLIPText(MODEL, clip_file, init_cfg=init_cfg), OpenCLIPText(MODEL, clip_file)
    text.init_weights()
    plain.init_weights()
    for (name, a), b in zip(text.named_parameters(), plain.parameters()):
        if '.ln_' in name:
            assert bool((a == (0.5 if name.endswith('weight') else 0.25)).all()), name
        else:
            assert torch.equal(a, b), name


def test_deepcopy_is_independent():
    text = OpenCLIPText(MODEL, frozen=True)
    tokens = text.tokenize(TEXTS)
    expected = text(tokens)
    twin = copy.deepcopy(text)
    assert torch.equal(twin(twin.tokenize(TEXTS)), expected)
    with torch.no_grad():
        twin.clip.text_projection.zero_()
    assert not twin(tokens).any()
    assert torch.equal(text(tokens), expected)
    assert not twin.train().clip.training


def test_towers_of_one_model_share_the_tokenizer(monkeypatch):
    """It takes a tenth of a second to build; a model of another context length has its own."""
    one, other = OpenCLIPText(MODEL), OpenCLIPText(MODEL)
    assert one.tokenizer is other.tokenizer
    config = open_clip.get_model_config(MODEL)
    config = {**config, 'text_cfg': {**config['text_cfg'], 'context_length': 7}}
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, MODEL, config)
    short = OpenCLIPText(MODEL)
    assert short.tokenize(['a']).shape == (1, 7)
    assert one.tokenize(['a']).shape == (1, one.clip.context_length)

"""Short cuts of causal text towers against open_clip's own full forward, outputs and gradients, in float64."""

import open_clip
import pytest
import torch
from open_clip.model import CLIP, CustomTextCLIP

from mmlt.models.text import (
    TextPlan,
    can_shorten,
    encode_text,
    equal_groups,
    few_groups,
    functional,
    length_groups,
    shared_prefix,
    text_lengths,
)

LENGTH = 77
START, END = 98, 99
VISION = dict(layers=1, width=16, head_width=8, patch_size=16, image_size=16)


def build(cls=CLIP, quick_gelu=False, vocab_size=100, **text):
    """A tiny model in float64 whose parameters are all random, biases and norms too."""
    text = {'context_length': LENGTH, 'vocab_size': vocab_size, 'width': 16, 'heads': 2, 'layers': 2, **text}
    clip = cls(12, VISION, text, quick_gelu=quick_gelu).double()
    with torch.no_grad():
        for p in clip.parameters():
            p.add_(torch.randn_like(p), alpha=0.2)
    return clip


LAYOUTS = {
    'plain': dict(),
    'plain-quick-gelu': dict(quick_gelu=True),
    'plain-eos': dict(pool_type='eos', eos_id=END),
    'plain-layer-scale': dict(ls_init_value=0.5),
    'custom': dict(cls=CustomTextCLIP),
    'custom-eos': dict(cls=CustomTextCLIP, pool_type='eos', eos_id=END),
    'custom-biased-projection': dict(cls=CustomTextCLIP, proj_bias=True),
    'custom-no-projection': dict(cls=CustomTextCLIP, proj_type='none'),
}


def pad(*texts):
    tokens = torch.zeros(len(texts), LENGTH, dtype=torch.long)
    for row, text in zip(tokens, texts):
        row[: len(text)] = torch.tensor(text)
    return tokens


def words(n, seed):
    return torch.randint(1, START, (n,), generator=torch.Generator().manual_seed(seed)).tolist()


def sentence(n, seed, prefix=()):
    return [START, *prefix, *words(n, seed), END]


TEXTS = {
    'prefix': pad(*[sentence(n, n, prefix=(5, 6, 7, 5)) for n in (3, 1, 2, 9, 1, 4, 1)]),
    'very different lengths': pad(*[sentence(n, n) for n in (75, 1, 30, 2, 0, 60)]),
    'nothing shared': pad([1, 2, 3, END], [4, 2, 3, 9, END], [1, END]),
    'one begins the other': pad(sentence(0, 0, (5, 6, 7)), sentence(0, 0, (5, 6)), sentence(3, 1, (5, 6))),
    'single': pad(sentence(6, 1)),
    'identical': pad(*[sentence(4, 1)] * 5),
    'only ends': pad([END], [END]),
    'all positions used': pad(*[sentence(75, seed, ()) for seed in (1, 2)]),
}


def text_parameters(clip):
    return {n: p for n, p in clip.named_parameters() if not n.startswith(('visual', 'logit'))}


def value_and_gradients(clip, encode):
    clip.zero_grad(set_to_none=True)
    out = encode()
    weight = torch.randn(out.shape, dtype=out.dtype, generator=torch.Generator().manual_seed(7))
    (out * weight).sum().backward()
    return out.detach(), {n: p.grad.clone() for n, p in text_parameters(clip).items()}


def assert_same(clip, tokens, plan=None):
    full, full_gradients = value_and_gradients(clip, lambda: clip.encode_text(tokens))
    short, short_gradients = value_and_gradients(clip, lambda: encode_text(clip, tokens, plan))
    assert short.dtype == torch.float64
    assert full.abs().max() > 0.1
    assert (short - full).abs().max() <= 1e-11
    assert short_gradients.keys() == full_gradients.keys() and len(full_gradients) > 25
    for name, expected in full_gradients.items():
        assert (short_gradients[name] - expected).abs().max() <= 1e-11, name
    assert sum(bool(g.abs().max() > 1e-6) for g in full_gradients.values()) >= len(full_gradients) - 2


@pytest.mark.parametrize('tokens', TEXTS.values(), ids=TEXTS.keys())
@pytest.mark.parametrize('layout', ['plain', 'custom'])
def test_equals_the_full_tower_for_all_kinds_of_texts(layout, tokens):
    clip = build(**LAYOUTS[layout])
    assert can_shorten(clip)
    assert_same(clip, tokens)


@pytest.mark.parametrize('layout', LAYOUTS.values(), ids=LAYOUTS.keys())
def test_equals_the_full_tower_in_all_layouts(layout):
    clip = build(**layout)
    assert can_shorten(clip)
    assert_same(clip, TEXTS['prefix'], equal_groups(clip, TEXTS['prefix'], 3))


@pytest.mark.parametrize('group_size', [1, 2, 64])
@pytest.mark.parametrize('share_prefix', [True, False])
def test_groups_and_prefix_do_not_change_the_result(group_size, share_prefix):
    clip = build()
    for tokens in (TEXTS['prefix'], TEXTS['very different lengths']):
        assert_same(clip, tokens, equal_groups(clip, tokens, group_size, share_prefix))


@pytest.mark.parametrize('layout', ['plain', 'custom'])
@pytest.mark.parametrize('tokens', [TEXTS['prefix'], TEXTS['nothing shared']], ids=['prefix', 'nothing shared'])
def test_gradient_checkpointing(layout, tokens, monkeypatch):
    clip = build(**LAYOUTS[layout])
    clip.set_grad_checkpointing(True)
    assert_same(clip, tokens, equal_groups(clip, tokens, 3))

    calls = []
    block = functional.run_block
    monkeypatch.setattr(functional, 'run_block', lambda *args: calls.append(1) or block(*args))
    out = encode_text(clip, tokens)
    forward = len(calls)
    out.sum().backward()
    assert len(calls) == 2 * forward  # every block ran again in the backward pass
    calls.clear()
    with torch.no_grad():
        encode_text(clip, tokens)
    assert len(calls) == forward


def test_real_prompts_at_context_length_77():
    clip = build(vocab_size=49408)
    tokenizer = open_clip.get_tokenizer('ViT-B-32')
    names = ('cat', 'golden retriever', 'Appenzeller Sennenhund', 'great white shark, man-eater', 'cat')
    assert tokenizer.context_length == LENGTH
    assert_same(clip, tokenizer([f'a photo of a {name}.' for name in names]))
    tokens = tokenizer([t('cat') for t in open_clip.OPENAI_IMAGENET_TEMPLATES][:12])
    assert_same(clip, tokens, equal_groups(clip, tokens, 5))


@pytest.mark.parametrize('custom', [False, True])
def test_model_from_open_clips_factory(custom):
    clip = open_clip.create_model('mmlt-tiny-vit', force_custom_text=custom).double()
    assert isinstance(clip, CustomTextCLIP if custom else CLIP)
    tokens = open_clip.get_tokenizer('mmlt-tiny-vit')(['a photo of a cat.', 'a photo of a polar bear.', 'a dog'])
    full, full_gradients = value_and_gradients(clip, lambda: clip.encode_text(tokens))
    short, short_gradients = value_and_gradients(clip, lambda: encode_text(clip, tokens))
    assert (short - full).abs().max() <= 1e-11
    for name, expected in full_gradients.items():
        assert (short_gradients[name] - expected).abs().max() <= 1e-11 * max(1, expected.abs().max()), name


def test_padding_is_cut_and_the_prefix_runs_once(monkeypatch):
    shapes = []
    block = functional.run_block
    monkeypatch.setattr(
        functional, 'run_block', lambda b, x, past: shapes.append(tuple(x.shape[:2])) or block(b, x, past)
    )
    clip = build(layers=1)
    tokens = TEXTS['prefix']  # start, 4 shared words, then 1, 1, 1, 2, 3, 4 and 9 words, end
    encode_text(clip, tokens, equal_groups(clip, tokens, 3))
    assert shapes == [(1, 5), (3, 2), (3, 5), (1, 10)]
    shapes.clear()
    encode_text(clip, tokens, equal_groups(clip, tokens, share_prefix=False))
    assert shapes == [(7, 15)]


def test_text_lengths():
    tokens = TEXTS['very different lengths']
    assert text_lengths(build(), tokens).tolist() == [77, 3, 32, 4, 2, 62]
    # The end is where eos_id stands first, whatever the other numbers are; START is the greatest here.
    tokens = pad([1, END, 3], [START, 2, 1, 3], [2, 3, 3, 7])
    assert text_lengths(build(pool_type='eos', eos_id=3), tokens).tolist() == [3, 4, 2]
    assert text_lengths(build(cls=CustomTextCLIP, pool_type='eos', eos_id=3), tokens).tolist() == [3, 4, 2]


@pytest.mark.parametrize(
    ('name', 'expected'),
    [
        ('prefix', 5),
        ('very different lengths', 1),
        ('nothing shared', 0),
        ('one begins the other', 3),
        ('single', 7),
        ('identical', 5),
        ('only ends', 0),
    ],
)
def test_shared_prefix(name, expected):
    tokens = TEXTS[name]
    assert shared_prefix(tokens, text_lengths(build(), tokens)) == expected


NOT_EXACT = {
    'SigLIP': dict(cls=CustomTextCLIP, no_causal_mask=True, pool_type='last', proj_bias=True),
    'bidirectional': dict(cls=CustomTextCLIP, no_causal_mask=True),
    'bidirectional plain': dict(no_causal_mask=True),
    'last pooling': dict(cls=CustomTextCLIP, pool_type='last'),
    'last pooling plain': dict(pool_type='last'),
    'first pooling': dict(pool_type='first'),
    'class token': dict(cls=CustomTextCLIP, embed_cls=True),
    'custom blocks': dict(qk_norm=True),
}


@pytest.mark.parametrize('layout', NOT_EXACT.values(), ids=NOT_EXACT.keys())
def test_other_towers_are_not_shortened(layout):
    assert not can_shorten(build(**layout))


def test_a_tower_that_is_no_transformer_is_not_shortened():
    clip = torch.nn.Module()
    clip.text = torch.nn.Linear(2, 2)
    assert not can_shorten(clip)


# On a GPU


def test_few_groups_are_the_least_work():
    lengths = torch.tensor([5] * 600 + [6] * 10 + [70] * 4 + [75] * 300)
    assert length_groups(lengths, 10**6) == ((914, 75),)
    assert length_groups(lengths, 0) == ((600, 5), (10, 6), (4, 70), (300, 75))
    assert length_groups(lengths, 700) == ((610, 6), (304, 75))
    assert length_groups(torch.tensor([9]), 4096) == ((1, 9),)
    for seed in range(20):  # against all ways to cut the sorted texts
        own = torch.randint(1, 12, (7,), generator=torch.Generator().manual_seed(seed))
        ordered = sorted(own.tolist())
        for cost in (0, 3, 20):
            ways = []
            for cuts in range(2**6):
                edges = [0, *(i + 1 for i in range(6) if cuts >> i & 1), 7]
                ways.append(sum((b - a) * ordered[b - 1] + cost for a, b in zip(edges, edges[1:])))
            found = length_groups(own, cost)
            assert sum(n for n, _ in found) == 7
            assert sum(n * size + cost for n, size in found) == min(ways)


@pytest.mark.parametrize('cost', [0, 10, 4096])
@pytest.mark.parametrize('tokens', TEXTS.values(), ids=TEXTS.keys())
def test_few_groups_do_not_change_the_result(tokens, cost):
    clip = build()
    plan = few_groups(clip, tokens, cost)
    assert plan.prefix == 0 and plan.length == int(text_lengths(clip, tokens).max())
    assert_same(clip, tokens, plan)


def test_texts_of_a_gpu_without_a_plan_are_run_in_full():
    clip = build()
    tokens = TEXTS['prefix']
    assert_same(clip, tokens, TextPlan(((len(tokens), tokens.shape[1]),)))
    plan = few_groups(clip, tokens)
    assert plan.order is None and plan.to('cpu') is plan

"""Anchor sentences: scores against the formula, selection, padding, and the file that keeps them."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file

from mmlt import InputError
from mmlt.engine.anchors import anchor_list, few_of_each
from mmlt.models.anchors import Anchors, select_sentences, sentence_scores
from mmlt.utils.text_tensor import tensor_to_text, text_to_tensor

TEXT_LABELS = [0, 0, 0, 1, 2, 2, 2, 2, 3, 3, 3]
IMAGE_LABELS = [2, 0, 0, 1, 3, 2, 0, 0, 1, 2, 2, 0, 3]


def naive_scores(text, text_labels, image, image_labels, scale):
    """L_lin of Eq. 2: the cross entropy of every sentence against [y_i = y_j] / n over all images."""
    scores = []
    for t, y in zip(text, text_labels):
        logits = torch.stack([scale * torch.dot(t, f) for f in image])
        log_p = logits - logits.exp().sum().log()
        own = [j for j, label in enumerate(image_labels) if label == y]
        scores.append(-sum(log_p[j] for j in own) / len(own))
    return torch.stack(scores)


def features(size, seed, width=6):
    generator = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(size, width, dtype=torch.float64, generator=generator), dim=-1)


def score(text, image, scale=14.3, **kwargs):
    return sentence_scores(text, torch.tensor(TEXT_LABELS), image, torch.tensor(IMAGE_LABELS), scale, **kwargs)


@pytest.mark.parametrize('tile', [(512, 2048), (1, 1), (3, 4), (4, 3), (11, 13), (10, 12), (5, 100)])
@pytest.mark.parametrize('scale', [1.0, 14.3, 100.0])
def test_scores_are_the_formula_for_any_tiles(tile, scale):
    text, image = features(11, 0), features(13, 1)
    actual = score(text, image, scale, tile=tile)
    expected = naive_scores(text, TEXT_LABELS, image, IMAGE_LABELS, scale)
    assert actual.shape == (11,) and actual.dtype == torch.float64
    assert (actual - expected).abs().max() <= 1e-11


def test_scores_leave_the_features_alone():
    text, image = features(11, 0), features(13, 1)
    copies = text.clone(), image.clone()
    score(text, image, tile=(2, 2))
    assert torch.equal(text, copies[0]) and torch.equal(image, copies[1])


def test_large_scales_do_not_overflow():
    text, image = features(11, 0), features(13, 1)
    actual = score(text.float(), image.float(), 1000.0, tile=(4, 5))
    expected = naive_scores(text, TEXT_LABELS, image, IMAGE_LABELS, 500.0)
    assert torch.isfinite(actual).all()
    assert (actual - 2 * expected).abs().max() <= 4  # near 2 x: log-sums of 500 and 1000 differ by their tails


def test_single_precision_of_many_images():
    text, image = features(11, 0, 32), features(500, 1, 32)
    labels = torch.arange(500) % 4
    actual = sentence_scores(text.float(), torch.tensor(TEXT_LABELS), image.float(), labels, 100.0, tile=(4, 37))
    expected = naive_scores(text, TEXT_LABELS, image, labels.tolist(), 100.0)
    assert (actual - expected).abs().max() <= 2e-4


def test_progress_is_wrapped_around_the_tiles():
    seen = []
    score(features(11, 0), features(13, 1), tile=(4, 4), progress=lambda tiles: (seen.append(len(tiles)), tiles)[1])
    assert seen == [3]


def test_a_class_with_images_and_no_sentences_is_a_distractor():
    text, image = features(11, 0), features(14, 1)
    labels = [*IMAGE_LABELS, 7]
    actual = sentence_scores(text, torch.tensor(TEXT_LABELS), image, torch.tensor(labels), 10.0)
    assert (actual - naive_scores(text, TEXT_LABELS, image, labels, 10.0)).abs().max() <= 1e-11


def test_class_without_image():
    labels = torch.tensor([2, 0, 0, 3])
    with pytest.raises(InputError, match='Class 1 has sentences but no image to score them with'):
        sentence_scores(features(11, 0), torch.tensor(TEXT_LABELS), features(4, 1), labels, 10.0)


# Selection

SCORES = torch.tensor([3.0, 1.0, 2.0, 5.0, 0.4, 0.1, 0.3, 0.2])
COUNTS = [3, 1, 4]


@pytest.mark.parametrize(
    'number, expected',
    [
        (1, [[1], [3], [5]]),
        (2, [[1, 2], [3], [5, 7]]),
        (3, [[1, 2, 0], [3], [5, 7, 6]]),
        (9, [[1, 2, 0], [3], [5, 7, 6, 4]]),
    ],
)
def test_the_least_loss_comes_first(number, expected):
    assert [rows.tolist() for rows in select_sentences(SCORES, COUNTS, number)] == expected


def test_equal_scores_keep_their_order():
    assert [r.tolist() for r in select_sentences(torch.zeros(8), COUNTS, 2)] == [[0, 1], [3], [4, 5]]


def test_cutoff_takes_the_first():
    assert [r.tolist() for r in select_sentences(SCORES, COUNTS, 2, 'cutoff')] == [[0, 1], [3], [4, 5]]


def test_random_follows_its_seed():
    counts = [40, 1, 30]
    a, b, other = (select_sentences(torch.zeros(71), counts, 5, 'random', seed) for seed in (3, 3, 4))
    assert [len(r) for r in a] == [5, 1, 5]
    for rows, again, start, count in zip(a, b, (0, 40, 41), counts):
        assert torch.equal(rows, again)
        assert len(rows.unique()) == len(rows) and rows.min() >= start and rows.max() < start + count
    assert not torch.equal(a[0], other[0])


def test_random_is_uniform():
    times = torch.zeros(8)
    for seed in range(900):
        for rows in select_sentences(SCORES, COUNTS, 2, 'random', seed):
            times[rows] += 1
    assert times[3] == 900
    # 2 of 3 and 2 of 4, with a standard deviation of 14 and 15
    assert (times[:3] - 600).abs().max() < 60 and (times[4:] - 450).abs().max() < 65


def test_wrong_selections():
    with pytest.raises(InputError, match="selection: method 'best' is unknown; choose one of anss, cutoff, random"):
        select_sentences(SCORES, COUNTS, 2, 'best')
    with pytest.raises(InputError, match='selection: num_anchors is 0; it must be at least 1'):
        select_sentences(SCORES, COUNTS, 0)


def test_few_of_each():
    labels = np.random.default_rng(1).permutation([0] * 70 + [1] * 3 + [2] * 20 + [5])
    chosen = few_of_each(labels, 20, seed=4)
    assert (np.diff(chosen) > 0).all()
    assert np.bincount(labels[chosen]).tolist() == [20, 3, 20, 0, 0, 1]
    assert np.array_equal(chosen, few_of_each(labels, 20, seed=4))
    assert not np.array_equal(chosen, few_of_each(labels, 20, seed=5))
    assert np.array_equal(few_of_each(labels, 100, seed=4), np.arange(94))
    drawn = np.bincount(np.concatenate([few_of_each(labels, 20, seed) for seed in range(400)]), minlength=94)
    assert (drawn[labels == 2] == 400).all()
    big = drawn[labels == 0]  # each with probability 2 / 7: 114, standard deviation 9
    assert big.min() > 70 and big.max() < 160


# The file


@pytest.fixture
def anchors():
    chosen = [torch.tensor([2, 0]), torch.tensor([3]), torch.tensor([7, 5, 6])]
    sentences = [f'Satz {i} — „ä“' for i in range(8)]
    features = torch.arange(32.0).view(8, 4) + 1
    return Anchors.gather(chosen, features, SCORES, sentences, 3, 12.5, dict(classes=['a', 'b', 'ç'], corpus='12ab'))


def test_gathered_anchors_are_padded(anchors):
    assert anchors.features.shape == (3, 3, 4)
    assert anchors.counts.tolist() == [2, 1, 3]
    assert anchors.features[:, :, 0].tolist() == [[9, 1, 0], [13, 0, 0], [29, 21, 25]]
    assert (anchors.features[0, 2] == 0).all()
    assert torch.equal(anchors.scores.isnan(), torch.tensor([[0, 0, 1], [0, 1, 1], [0, 0, 0]]).bool())
    assert anchors.scores[2].tolist() == pytest.approx([0.2, 0.1, 0.3])
    assert anchors.sentences[0] == ['Satz 2 — „ä“', 'Satz 0 — „ä“'] and len(anchors.sentences[1]) == 1


def test_file_gives_back_what_was_written(anchors, tmp_path):
    path = str(tmp_path / 'a.safetensors')
    anchors.save(path)
    again = Anchors.load(path)
    assert torch.equal(again.features, anchors.features) and torch.equal(again.counts, anchors.counts)
    assert torch.equal(again.scores.nan_to_num(-1), anchors.scores.nan_to_num(-1))
    assert again.sentences == anchors.sentences and again.facts == anchors.facts
    assert again.logit_scale == 12.5
    assert [p.name for p in tmp_path.iterdir()] == ['a.safetensors']


def test_missing_file(tmp_path):
    for path in (tmp_path / 'none.safetensors', tmp_path):
        with pytest.raises(InputError, match='does not exist: it is written at the end of a CVLP training'):
            Anchors.load(str(path))


def _cut(path):
    path.write_bytes(path.read_bytes()[:-5])


def _no_texts(path):
    tensors = load_file(path)
    del tensors['texts']
    save_file(tensors, path)


def _texts(value):
    def change(path):
        save_file({**load_file(path), 'texts': text_to_tensor(value)}, path)

    return change


@pytest.mark.parametrize(
    'damage',
    [
        _cut,
        lambda path: path.write_bytes(b''),
        lambda path: path.write_bytes(b'hello, this is text'),
        _no_texts,
        _texts('{"sentences": [['),
        _texts('{"sentences": []}'),
        lambda path: save_file({'weight': torch.ones(2)}, path),
    ],
    ids=['cut', 'empty', 'text', 'no texts', 'cut texts', 'no facts', 'another file'],
)
def test_damaged_file(anchors, tmp_path, damage):
    path = tmp_path / 'a.safetensors'
    anchors.save(str(path))
    damage(path)
    with pytest.raises(InputError, match=r"a\.safetensors' is no anchor file, or a damaged one"):
        Anchors.load(str(path))


def test_text_as_bytes():
    for text in ('plain', 'Größe 三 🍐\n'):
        assert tensor_to_text(text_to_tensor(text)) == text


def test_listing_tells_best_and_worst():
    sentences = [[f'a{i}' for i in range(7)], ['b0', 'b1']]
    scores = torch.tensor([0.5, 0.1, 0.9, 0.3, 0.2, 0.8, 0.4, 2.0, 1.0])
    lines = anchor_list(['apple', 'pear'], sentences, scores, number=2).splitlines()
    assert 'lower is more telling' in lines[0]
    assert lines[2:8] == [
        'apple (7 sentences)',
        '    0.100  a1',
        '    0.200  a4',
        '      ...',
        '    0.800  a5',
        '    0.900  a2',
    ]
    assert lines[9:] == ['pear (2 sentences)', '    1.000  b1', '    2.000  b0']

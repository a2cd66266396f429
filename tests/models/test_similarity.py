"""Softmax over all pairs, tile by tile: the whole matrix's numbers and gradients, and none of it kept."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from mmlt.models.losses import contrastive_loss, distillation_loss, similarity
from mmlt.models.losses.contrastive import label_groups
from mmlt.models.losses.similarity import log_sum_exp, row_tiles, softmax_means
from mmlt.utils.precision import exact_matmul, exact_product

CPU = torch.device('cpu')


@pytest.fixture(params=[None, 1, 7, 40], ids=['kept', 'a row', '7 pairs', '40 pairs'])
def tiles(request, monkeypatch):
    """Pairs of a tile; 9 x 13 are computed. None keeps all of them."""
    if request.param is not None:
        monkeypatch.setattr(similarity, 'KEPT', 0)
        monkeypatch.setattr(similarity, '_PAIRS', {'cpu': request.param, 'other': request.param})
    return request.param


def make(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)).requires_grad_()


def assert_same(actual, expected, inputs):
    assert (actual - expected).abs().max() <= 1e-12 * expected.abs().max()
    weight = torch.linspace(1, 2, actual.numel(), dtype=torch.float64).view_as(actual)
    ours = torch.autograd.grad((actual * weight).sum(), inputs)
    for a, b in zip(ours, torch.autograd.grad((expected * weight).sum(), inputs)):
        assert b.abs().max() > 1e-6 and (a - b).abs().max() <= 1e-12 * b.abs().max()


@pytest.mark.parametrize('columns', [False, True])
def test_log_sums_are_those_of_the_matrix(tiles, columns):
    inputs = queries, keys, scale = make(9, 5), make(13, 5, seed=1), torch.tensor(3.7).double().requires_grad_()

    def logits():
        return scale * queries @ keys.t()

    rows, over_columns = log_sum_exp(queries, keys, scale, columns)
    assert_same(rows, logits().logsumexp(1), inputs)
    if not columns:
        assert over_columns is None
        return
    assert_same(log_sum_exp(queries, keys, scale, True)[1], logits().logsumexp(0), inputs)
    both = torch.cat(log_sum_exp(queries, keys, scale, True))
    assert_same(both, torch.cat([logits().logsumexp(1), logits().logsumexp(0)]), inputs)


def test_scale_may_be_a_number_and_inputs_constant(tiles):
    queries, keys = make(9, 5), make(13, 5, seed=1).detach()
    rows, columns = log_sum_exp(queries, keys, 2.0, True)
    logits = 2.0 * queries @ keys.t()
    assert_same(torch.cat([rows, columns]), torch.cat([logits.logsumexp(1), logits.logsumexp(0)]), (queries,))


@pytest.mark.parametrize('both', [False, True])
def test_means_are_those_of_the_matrix(tiles, both):
    queries, keys = make(9, 5).detach(), make(13, 5, seed=1).detach()
    values, others = make(13, 4, seed=2), make(9, 4, seed=3)
    logits = 1.7 * queries @ keys.t()
    rows, columns = logits.logsumexp(1), logits.logsumexp(0)
    if both:
        means, mixed = softmax_means(values, queries, keys, 1.7, rows, others, columns)
        expected = torch.cat([logits.softmax(1) @ values, logits.softmax(0).t() @ others])
        assert_same(torch.cat([means, mixed]), expected, (values, others))
    else:
        means, mixed = softmax_means(values, queries, keys, 1.7, rows)
        assert mixed is None
        assert_same(means, logits.softmax(1) @ values, (values,))


def test_large_logits_do_not_overflow(monkeypatch):
    monkeypatch.setattr(similarity, 'KEPT', 0)
    monkeypatch.setattr(similarity, '_PAIRS', {'cpu': 20, 'other': 20})
    queries, keys = make(9, 5).float(), make(13, 5, seed=1).float()
    logits = 500.0 * queries @ keys.t()
    for found, expected in zip(log_sum_exp(queries, keys, 500.0, True), (logits.logsumexp(1), logits.logsumexp(0))):
        assert torch.isfinite(found).all() and torch.allclose(found, expected, rtol=1e-5)


def test_tiles_cover_all_rows():
    for rows, columns in ((1, 1), (5000, 3000), (40000, 40000), (3, 10**8)):
        for device in (CPU, torch.device('meta')):
            parts = list(row_tiles(rows, columns, device))
            covered = [i for part in parts for i in (part.start, part.stop)]
            assert covered[0] == 0 and covered[-1] >= rows and covered[1:-1:2] == covered[2::2]
    assert len(list(row_tiles(2048, 2048, CPU))) == 1


class Sizes(TorchDispatchMode):
    """The largest tensor that any operation makes."""

    largest = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for x in torch.utils._pytree.tree_leaves(out):
            if isinstance(x, torch.Tensor):
                self.largest = max(self.largest, x.numel())
        return out


@pytest.mark.parametrize(
    'loss',
    [
        lambda i, t, ti, tt: contrastive_loss(i, t, torch.arange(len(i)) % 50, torch.tensor(20.0), 0.1),
        lambda i, t, ti, tt: distillation_loss(i, t, ti, tt, torch.tensor(20.0), 30.0, 'pair'),
        lambda i, t, ti, tt: distillation_loss(i, t, ti, tt, torch.tensor(20.0), 30.0, 'full'),
    ],
    ids=['contrastive', 'pair', 'full'],
)
def test_no_matrix_of_all_pairs_is_made_or_kept(monkeypatch, loss):
    monkeypatch.setattr(similarity, 'KEPT', 2**14)
    monkeypatch.setattr(similarity, '_PAIRS', {'cpu': 2**14, 'other': 2**14})
    n, width = 512, 16
    image, text, *teacher = (make(n, width, seed=s).float().detach().requires_grad_(s < 2) for s in range(4))
    kept = []
    with Sizes() as sizes, torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(x.numel()) or x, lambda x: x):
        value = loss(image, text, *teacher)
        value.backward()
    assert max(kept) <= n * width and sum(kept) <= 60 * n * width
    assert n * width <= sizes.largest <= 2**14


def test_labels_are_numbered():
    for labels in ([0, 3, 3, 1, 0, 3, 7, 2], [4] * 5, [9], [-1, 10**12, -1, 10**12, 5], list(range(7, 0, -1))):
        labels = torch.tensor(labels)
        groups = label_groups(labels)
        assert torch.equal(groups[:, None] == groups, labels[:, None] == labels)
        assert int(groups.min()) >= 0 and int(groups.max()) < len(labels)


def test_exact_products():
    a, b = make(4, 3), make(5, 3, seed=1)
    assert_same(exact_product(a, b), a @ b.t(), (a, b))
    with torch.no_grad():
        assert torch.equal(exact_product(a, b), a @ b.t())
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = True
    try:
        with pytest.raises(ZeroDivisionError), exact_matmul(CPU):
            assert not torch.backends.cuda.matmul.allow_tf32
            raise ZeroDivisionError
        assert torch.backends.cuda.matmul.allow_tf32
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before
    with torch.autocast('cpu', torch.bfloat16), exact_matmul(CPU):
        assert (a.float() @ b.float().t()).dtype == torch.float32

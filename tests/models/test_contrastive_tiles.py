"""The tiles of contrastive and distillation losses: values and gradients, what is kept, what is read, precision."""

import pytest
import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from mmlt import InputError
from mmlt.models.losses import class_means, contrastive, contrastive_functional, contrastive_loss, distillation_loss
from mmlt.models.losses.contrastive_functional import MAX_LOGITS, make_tiles
from mmlt.utils.precision import exact_matmul, exact_product

SIZE = 37
LABELS = {
    'duplicates': (torch.arange(SIZE) * 7 + 3) % 11 - 2,
    'all equal': torch.full((SIZE,), 4),
    'distinct': torch.arange(SIZE).flip(0),
}
FORMS = ('ccl', 'smoothed', 'pair', 'full')


def inputs(size=SIZE, width=6, dtype=torch.float64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    image, text = (F.normalize(torch.randn(size, width, dtype=dtype, generator=generator), dim=-1) for _ in range(2))
    soft = [F.normalize(torch.randn(size, 9, dtype=dtype, generator=generator), dim=-1) for _ in range(2)]
    return [image.requires_grad_(), text.requires_grad_(), torch.tensor(17.5, dtype=dtype, requires_grad=True)], soft


def naive(form, image, text, scale, soft, labels):
    total, n = 0, len(image)
    for (f, t), (g, u) in zip(((image, text), (text, image)), (soft, soft[::-1])):
        log_p, targets = (scale * f @ t.t()).log_softmax(1), (9.0 * g @ u.t()).softmax(1)
        if form == 'pair':
            targets = torch.diag(targets.diag())
        elif form != 'full':
            targets = (labels[:, None] == labels).to(f.dtype)
            targets = targets / targets.sum(1, keepdim=True)
            targets = 0.9 * targets + 0.1 / n if form == 'smoothed' else targets
        total = total - (targets * log_p).sum() / n
    return total / 2


def fast(form, image, text, scale, soft, labels, max_logits=None):
    if form in ('ccl', 'smoothed'):
        return contrastive_loss(image, text, labels, scale, 0.1 if form == 'smoothed' else 0.0, max_logits)
    return distillation_loss(image, text, *soft, scale, 9.0, form, max_logits)


@pytest.fixture(autouse=True)
def tiles(monkeypatch):
    """Few pairs would be a matrix as it stands."""
    monkeypatch.setattr(contrastive, '_FEW_PAIRS', 0)


@pytest.mark.parametrize('labels', LABELS)
@pytest.mark.parametrize('form', FORMS)
def test_few_pairs_are_a_plain_matrix(form, labels, monkeypatch):
    monkeypatch.setattr(contrastive, '_FEW_PAIRS', SIZE**2)
    monkeypatch.setattr(contrastive, 'global_loss', None)
    x, soft = inputs()
    labels = LABELS[labels]
    actual, expected = fast(form, *x, soft, labels), naive(form, *x, soft, labels)
    assert (actual - expected).abs() <= 1e-12 * expected
    for a, b in zip(torch.autograd.grad(actual, x), torch.autograd.grad(expected, x)):
        assert (a - b).abs().max() <= 1e-12 * b.abs().max().clamp(min=1)
    monkeypatch.setattr(contrastive, '_FEW_PAIRS', SIZE**2 - 1)
    with pytest.raises(TypeError):  # one pair more, and it goes by tiles
        fast(form, *x, soft, labels)


@pytest.fixture(params=[None, (40, 7, 90), (1, 5, 3), (10**6, 37, 700), (64, 16, None)])
def cut(request, monkeypatch):
    """Size and width of tiles on a CPU, and the logits that are kept: all in one, ragged ones, single logits, ..."""
    if request.param is None:
        return None
    tile, width, max_logits = request.param
    monkeypatch.setattr(contrastive_functional, '_CPU_TILE', tile)
    monkeypatch.setattr(contrastive_functional, '_CPU_WIDTH', width)
    return max_logits


@pytest.mark.parametrize('labels', LABELS)
@pytest.mark.parametrize('form', FORMS)
def test_tiles_give_the_matrix_form(form, labels, cut):
    x, soft = inputs()
    labels = LABELS[labels]
    actual, expected = fast(form, *x, soft, labels, cut), naive(form, *x, soft, labels)
    assert (actual - expected).abs() <= 1e-11 * expected
    for a, b in zip(torch.autograd.grad(actual, x), torch.autograd.grad(expected, x)):
        assert b.abs().max() > 1e-5
        assert (a - b).abs().max() <= 1e-11 * b.abs().max().clamp(min=1)


@pytest.mark.parametrize('form', FORMS)
@pytest.mark.parametrize('needed', ['i', 't', 's', 'is', 'ts', 'it'])
def test_gradients_of_some_inputs_only(form, needed):
    x, soft = inputs()
    x = [a.detach().requires_grad_(k in needed) for k, a in zip('its', x)]
    wanted = [a for a in x if a.requires_grad]
    labels = LABELS['duplicates']
    actual = torch.autograd.grad(fast(form, *x, soft, labels, 100), wanted)
    expected = torch.autograd.grad(naive(form, *x, soft, labels), wanted)
    for a, b in zip(actual, expected):
        assert (a - b).abs().max() <= 1e-12


@pytest.mark.parametrize('form', FORMS)
def test_scales_that_are_no_tensors_and_no_gradient_at_all(form):
    (image, text, scale), soft = inputs()
    labels = LABELS['duplicates']
    expected = naive(form, image, text, scale, soft, labels)
    loss = fast(form, image, text, 17.5, soft, labels, 100)
    assert (loss - expected).abs() <= 1e-12
    for a, b in zip(torch.autograd.grad(loss, (image, text)), torch.autograd.grad(expected, (image, text))):
        assert (a - b).abs().max() <= 1e-12
    with torch.no_grad():
        loss = fast(form, image, text, scale, soft, labels, 100)
    assert not loss.requires_grad
    assert (loss - expected).abs() <= 1e-12


@pytest.mark.parametrize('form', FORMS)
@pytest.mark.parametrize('max_logits', [None, 300])
def test_a_second_backward_pass_and_a_factor(form, max_logits):
    x, soft = inputs()
    loss = -2.5 * fast(form, *x, soft, LABELS['duplicates'], max_logits)
    first = torch.autograd.grad(loss, x, retain_graph=True)
    for a, b in zip(first, torch.autograd.grad(loss, x)):
        assert torch.equal(a, b)
    for a, b in zip(first, torch.autograd.grad(naive(form, *x, soft, LABELS['duplicates']), x)):
        assert (a + 2.5 * b).abs().max() <= 1e-12


@pytest.mark.parametrize('form', FORMS)
@pytest.mark.parametrize('max_logits', [None, 300])
def test_single_precision_where_all_logits_of_a_column_are_small(form, max_logits):
    (image, text, _), soft = inputs(width=64, dtype=torch.float32)
    with torch.no_grad():
        text[3], text[5] = -image.mean(0), image[5]  # far below, and far above, what else is in the rows
        image += 2 * image.mean(0)
        image, text = F.normalize(image, dim=-1), F.normalize(text, dim=-1)
    single = [image.requires_grad_(), text.requires_grad_(), torch.tensor(100.0, requires_grad=True)]
    double = [x.detach().double().requires_grad_() for x in single]
    labels = LABELS['duplicates']
    actual = fast(form, *single, soft, labels, max_logits)
    expected = naive(form, *double, [x.double() for x in soft], labels)
    assert (actual - expected).abs() <= 1e-5 * expected
    for a, b in zip(torch.autograd.grad(actual, single), torch.autograd.grad(expected, double)):
        assert (a - b).abs().max() <= 3e-5 * b.abs().max()


def test_class_means_of_labels_of_any_size_and_kind():
    x = torch.randn(6, 3, dtype=torch.float64)
    for labels in (torch.tensor([9, -1, 10**12, 9, 10**12, 9]), torch.tensor([2, 0, 1, 2, 1, 2], dtype=torch.uint8)):
        expected = torch.stack([x[labels == y].mean(0) for y in labels])
        assert (class_means(x, labels) - expected).abs().max() <= 1e-15


@pytest.mark.parametrize('form', FORMS)
@pytest.mark.parametrize('max_logits', [None, 300])
def test_the_gradient_as_gpus_compute_it(form, max_logits, monkeypatch):
    plain, fused = contrastive_functional._both_softmaxes, contrastive_functional._both_softmaxes_fused
    monkeypatch.setattr(contrastive_functional, '_both_softmaxes', fused)
    x, soft = inputs()
    labels = LABELS['duplicates']
    actual = torch.autograd.grad(fast(form, *x, soft, labels, max_logits), x)
    for a, b in zip(actual, torch.autograd.grad(naive(form, *x, soft, labels), x)):
        assert (a - b).abs().max() <= 1e-12
    generator = torch.Generator().manual_seed(1)
    queries, keys = (100 * torch.randn(n, 1, generator=generator) for n in (5, 7))  # logits of up to 10,000
    logits = queries @ keys.t()
    offsets = -logits.logsumexp(1), -logits.logsumexp(0)
    for kept in (None, logits):
        a, b = (f(queries, keys, kept, *offsets) for f in (plain, fused))
        assert torch.isfinite(b).all() and (a - b).abs().max() <= 2e-3  # the rounding of such logits


# What is kept


class Largest(TorchDispatchMode):
    """Elements of the largest tensor that any operation makes."""

    def __init__(self):
        super().__init__()
        self.elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for x in out if isinstance(out, (tuple, list)) else [out]:
            if isinstance(x, torch.Tensor):
                # Not the size of a view: an expanded one takes no memory.
                self.elements = max(self.elements, x.untyped_storage().nbytes() // x.element_size())
        return out


def kept_and_largest(form, max_logits, size=256):
    x, soft = inputs(size, width=4)
    kept = {}

    def keep(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor.numel()
        return tensor

    with Largest() as largest, torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = fast(form, *x, soft, torch.arange(size) % 50, max_logits)
        total = sum(kept.values())
        loss.backward()
    return total, largest.elements


@pytest.mark.parametrize('form', FORMS)
def test_no_matrix_of_all_pairs_is_made_or_kept(form):
    size, features = 256, 256 * 9
    kept, largest = kept_and_largest(form, 4096)
    assert largest <= 4096 < size * size
    assert kept <= 4096 + 7 * features
    matrices = 2 if form == 'full' else 1
    kept, largest = kept_and_largest(form, None)
    assert matrices * size * size <= kept <= matrices * size * size + 7 * features  # plain: nothing is computed twice


@pytest.mark.parametrize('rows, columns', [(1, 1), (37, 37), (5, 4000), (3000, 1100), (4096, 32768)])
@pytest.mark.parametrize('max_logits', [None, 10_000])
@pytest.mark.parametrize('device', ['cpu', 'cuda'])
@pytest.mark.parametrize('share', [1, 4])
def test_tiles_cover_every_logit_once(rows, columns, max_logits, device, share):
    tiles = make_tiles(rows, columns, torch.device(device), max_logits, share)
    most = (max_logits or MAX_LOGITS) // share
    sizes = [(r.stop - r.start) * (c.stop - c.start) for r, c in tiles.parts]
    assert sum(sizes) == rows * columns and min(sizes) > 0 and max(sizes) <= most
    corners = {(r.start, c.start) for r, c in tiles.parts} | {(r.stop, c.stop) for r, c in tiles.parts}
    assert len({(r.start, c.start) for r, c in tiles.parts}) == len(sizes) and (rows, columns) in corners
    assert sum(sizes[: tiles.num_kept]) <= most
    assert tiles.num_kept == len(sizes) or sum(sizes[: tiles.num_kept + 1]) > most


def test_few_large_tiles_for_a_gpu_and_small_ones_for_a_cpu():
    gpu, cpu = (make_tiles(32768, 32768, torch.device(device)) for device in ('cuda', 'cpu'))
    assert len(gpu.parts) == 32 and gpu.num_kept == 1
    assert len(cpu.parts) == 2048 and cpu.num_kept == 64
    assert len(make_tiles(2048, 2048, torch.device('cuda')).parts) == 1
    with pytest.raises(InputError, match='max_logits is 0; give a positive number of logits, or None'):
        make_tiles(4, 4, torch.device('cpu'), 0)


# Nothing is read from the device


class NothingRead(TorchDispatchMode):
    """Refuses operations whose result, or its size, the host has to wait for."""

    READING = ('_local_scalar_dense', 'item', 'nonzero', '_unique2', 'unique_consecutive', 'masked_select', 'equal')

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func._schema.name.removeprefix('aten::')
        assert name not in self.READING, f'{name} waits for the device'
        if name.startswith('index') and len(args) > 1 and isinstance(args[1], (tuple, list)):
            assert not any(x is not None and x.dtype == torch.bool for x in args[1]), 'a mask waits for the device'
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize('form', FORMS)
@pytest.mark.parametrize('max_logits', [None, 300])
def test_nothing_is_read_from_the_device(form, max_logits):
    x, soft = inputs()
    with NothingRead():
        fast(form, *x, soft, LABELS['duplicates'], max_logits).backward()
    assert all(a.grad is not None for a in x)


def test_a_reading_operation_would_be_noticed():
    for read in (lambda x: x.unique(return_counts=True), lambda x: x.max().item(), lambda x: x[x > 1]):
        with NothingRead(), pytest.raises(AssertionError, match='waits for the device'):
            read(torch.arange(3))


# Precision of the products

MATMUL = torch.backends.cuda.matmul


class Settings(TorchDispatchMode):
    """Under which settings products are made."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func._schema.name in ('aten::mm', 'aten::addmm', 'aten::addmm_', 'aten::bmm'):
            tf32 = MATMUL.fp32_precision if hasattr(MATMUL, 'fp32_precision') else MATMUL.allow_tf32
            self.seen.append((tf32, args[0].dtype))
        return func(*args, **(kwargs or {}))


@pytest.fixture
def tf32():
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision('medium')
    yield
    torch.set_float32_matmul_precision(before)


@pytest.mark.parametrize('form', FORMS)
@pytest.mark.parametrize('max_logits', [None, 300])
def test_products_are_exact_in_both_passes(form, max_logits, tf32):
    x, soft = inputs(dtype=torch.float32)
    exact = 'ieee' if hasattr(MATMUL, 'fp32_precision') else False
    loss = fast(form, *x, soft, LABELS['duplicates'], max_logits)
    expected = torch.autograd.grad(loss, x)
    with Settings() as forward, torch.autocast('cpu', torch.bfloat16):
        loss = fast(form, *x, soft, LABELS['duplicates'], max_logits)
    with Settings() as backward, torch.autocast('cpu', torch.bfloat16):
        actual = torch.autograd.grad(loss, x)
    assert len(forward.seen) >= 1 and len(backward.seen) >= 2
    assert set(forward.seen + backward.seen) == {(exact, torch.float32)}
    assert all(torch.equal(a, b) for a, b in zip(actual, expected))
    assert MATMUL.allow_tf32 and torch.get_float32_matmul_precision() == 'medium'


def test_settings_are_put_back_after_an_error(tf32):
    with pytest.raises(ZeroDivisionError), exact_matmul(torch.device('cpu')):
        raise ZeroDivisionError
    assert MATMUL.allow_tf32 and torch.get_float32_matmul_precision() == 'medium'
    with Settings() as settings:
        torch.randn(2, 2) @ torch.randn(2, 2)
    assert settings.seen[0][0] in ('tf32', True)  # the test can tell


def test_exact_products(tf32):
    """Values and gradients are those of the plain product, and none of the products is rounded."""
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randn(n, 3, dtype=torch.float64, generator=generator).requires_grad_() for n in (4, 5))
    weight = torch.linspace(1, 2, 20, dtype=torch.float64).view(4, 5)
    with Settings() as settings:
        product = exact_product(a, b)
        gradients = torch.autograd.grad((product * weight).sum(), (a, b))
    exact = 'ieee' if hasattr(MATMUL, 'fp32_precision') else False
    assert {seen[0] for seen in settings.seen} == {exact} and len(settings.seen) == 3
    assert torch.equal(product, a @ b.t())
    for x, y in zip(gradients, torch.autograd.grad(((a @ b.t()) * weight).sum(), (a, b))):
        assert (x - y).abs().max() <= 1e-14
    with torch.no_grad():
        assert torch.equal(exact_product(a, b), product)
    with torch.autocast('cpu', torch.bfloat16):
        assert exact_product(a.float(), b.float()).dtype == torch.float32

"""Contrastive and distillation losses: naive matrix forms, open_clip's loss, and one process against 2 and 4."""

from unittest import mock

import open_clip
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
import torch.nn.functional as F
from mmpretrain.registry import MODELS
from torch import nn

from mmlt import InputError
from mmlt.models import CCLLoss, ContrastiveLoss, ImageTextDistillLoss
from mmlt.models.losses import class_means, contrastive_loss, distillation_loss
from mmlt.utils import gather, leave_together
from mmlt.utils.dist import check_sizes

LABELS = [0, 3, 3, 1, 0, 3, 7, 2]


def naive(image, text, labels, scale, label_smoothing=0.0):
    """Cross-entropy of both softmaxes with the target matrix [y_i = y_j] / n_{y_i}, smoothed over the batch."""
    n = len(labels)
    targets = torch.zeros(n, n, dtype=image.dtype)
    for i in range(n):
        for j in range(n):
            if labels[i] == labels[j]:
                targets[i, j] = 1 / sum(int(y == labels[i]) for y in labels)
    targets = (1 - label_smoothing) * targets + label_smoothing / n
    logits = torch.stack([torch.stack([scale * torch.dot(f, t) for t in text]) for f in image])
    total = 0
    for matrix in (logits, logits.t()):
        for i in range(n):
            total = total - (targets[i] * (matrix[i] - matrix[i].exp().sum().log())).sum() / n
    return total / 2


def naive_distillation(image, text, teacher_image, teacher_text, scale, teacher_scale, form):
    """VL-LTR's Eq. 3, entry by entry: only (i, i), or the whole rows; the mean of both directions."""
    n, total = len(image), 0
    for own, theirs in (((image, text), (teacher_image, teacher_text)), ((text, image), (teacher_text, teacher_image))):
        for i in range(n):
            p = torch.stack([(scale * torch.dot(own[0][i], own[1][j])).exp() for j in range(n)])
            q = torch.stack([(teacher_scale * torch.dot(theirs[0][i], theirs[1][j])).exp() for j in range(n)])
            p, q = p / p.sum(), q / q.sum()
            for j in [i] if form == 'pair' else range(n):
                total = total - q[j].detach() * p[j].log() / n
    return total / 2


def features(n, width=6, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [
        F.normalize(torch.randn(n, width, dtype=torch.float64, generator=generator), dim=-1).requires_grad_()
        for _ in range(2)
    ]


@pytest.mark.parametrize('labels', [LABELS, [4] * 8, list(range(8)), [-1, 5, 5, 5, 9, 10**12, 10**12, -1]])
@pytest.mark.parametrize('scale', [1.0, 14.3, 100.0])
@pytest.mark.parametrize('smoothing', [0.0, 0.1])
def test_class_wise_loss_is_the_matrix_form(labels, scale, smoothing):
    image, text = features(8)
    labels, scale = torch.tensor(labels), torch.tensor(scale, dtype=torch.float64, requires_grad=True)
    expected = naive(image, text, labels, scale, smoothing)
    actual = contrastive_loss(image, text, labels, scale, smoothing)
    assert actual.ndim == 0
    assert (actual - expected).abs() <= 1e-12 * expected.abs().clamp(min=1)
    inputs = (image, text, scale)
    for a, b in zip(torch.autograd.grad(actual, inputs), torch.autograd.grad(expected, inputs)):
        assert b.abs().max() > 1e-6
        assert (a - b).abs().max() <= 1e-12 * b.abs().max().clamp(min=1)


@pytest.mark.parametrize('form', ['pair', 'full'])
@pytest.mark.parametrize('teacher_scale', [1.0, 30.0])
def test_distillation_is_the_matrix_form(form, teacher_scale):
    image, text = features(8)
    teacher = features(8, width=9, seed=1)  # a teacher may be of another width
    scale = torch.tensor(14.3, dtype=torch.float64, requires_grad=True)
    teacher_scale = torch.tensor(teacher_scale, dtype=torch.float64, requires_grad=True)
    actual = distillation_loss(image, text, *teacher, scale, teacher_scale, form)
    expected = naive_distillation(image, text, *teacher, scale, teacher_scale, form)
    assert (actual - expected).abs() <= 1e-12 * expected
    inputs = (image, text, scale)
    for a, b in zip(torch.autograd.grad(actual, inputs, retain_graph=True), torch.autograd.grad(expected, inputs)):
        assert b.abs().max() > 1e-6
        assert (a - b).abs().max() <= 1e-12 * b.abs().max().clamp(min=1)
    assert all(g is None for g in torch.autograd.grad(actual, (*teacher, teacher_scale), allow_unused=True))


def test_full_distillation_is_least_at_the_teacher():
    image, text = features(8)
    loss = distillation_loss(image, text, image, text, 20.0, 20.0, 'full')
    assert all(g.abs().max() <= 1e-14 for g in torch.autograd.grad(loss, (image, text)))
    other = features(8, seed=1)
    assert loss < distillation_loss(*other, image, text, 20.0, 20.0, 'full')


def test_distillation_of_large_scales_and_under_autocast():
    image, text = (x.detach().float() for x in features(8))
    teacher = [x.detach().float() for x in features(8, seed=1)]
    for form in ('pair', 'full'):
        assert torch.isfinite(distillation_loss(image, text, *teacher, 1000.0, 1000.0, form))
        expected = distillation_loss(image, text, *teacher, 100.0, 30.0, form)
        with torch.autocast('cpu', torch.bfloat16):
            assert torch.equal(distillation_loss(image, text, *teacher, 100.0, 30.0, form), expected)


def test_distinct_labels_give_clips_loss():
    image, text = features(7)
    scale = torch.tensor(20.0, dtype=torch.float64, requires_grad=True)
    actual = contrastive_loss(image, text, torch.tensor([5, 1, 3, 0, 9, 8, 7]), scale)
    expected = open_clip.ClipLoss()(image, text, scale)
    assert (actual - expected).abs() <= 1e-13
    inputs = (image, text, scale)
    for a, b in zip(torch.autograd.grad(actual, inputs), torch.autograd.grad(expected, inputs)):
        assert (a - b).abs().max() <= 1e-13
    assert (contrastive_loss(image, text, torch.tensor([5, 1, 3, 0, 9, 9, 7]), scale) - expected).abs() > 1e-2


def test_symmetric_in_images_and_texts():
    image, text = features(8)
    labels = torch.tensor(LABELS)
    a, b = contrastive_loss(image, text, labels, 10.0), contrastive_loss(text, image, labels, 10.0)
    assert (a - b).abs() <= 1e-13


def test_one_pair():
    image, text = features(1)
    assert contrastive_loss(image, text, torch.tensor([3]), 50.0).abs() <= 1e-13


def test_large_scales_do_not_overflow():
    image, text = (x.detach().float() for x in features(8))
    loss = contrastive_loss(image, text, torch.tensor(LABELS), 1000.0)
    expected = naive(image.double(), text.double(), torch.tensor(LABELS), 500.0) * 2  # not less than half of it
    assert torch.isfinite(loss)
    assert loss > 0.9 * expected


def test_autocast_does_not_round_the_logits():
    image, text = (x.detach().float() for x in features(8))
    labels = torch.tensor(LABELS)
    expected = naive(image.double(), text.double(), labels, 100.0)
    with torch.autocast('cpu', torch.bfloat16):
        loss = contrastive_loss(image, text, labels, 100.0)
    assert loss.dtype == torch.float32
    assert (loss - expected).abs() <= 1e-4 * expected


def test_class_means():
    x = torch.randn(8, 3, dtype=torch.float64, requires_grad=True)
    labels = torch.tensor(LABELS)
    expected = torch.stack([torch.stack([x[j] for j in range(8) if LABELS[j] == y]).mean(0) for y in LABELS])
    actual = class_means(x, labels)
    assert (actual - expected).abs().max() <= 1e-15
    weight = torch.randn_like(x)
    a, b = (torch.autograd.grad((out * weight).sum(), x)[0] for out in (actual, expected))
    assert (a - b).abs().max() <= 1e-15


def test_module_and_weight():
    image, text = features(8)
    labels = torch.tensor(LABELS)
    expected = contrastive_loss(image, text, labels, 10.0)
    assert torch.equal(ContrastiveLoss()(image, text, labels, 10.0), expected)
    module = MODELS.build(dict(type='mmlt.ContrastiveLoss', loss_weight=0.25))
    assert torch.equal(module(image, text, labels, 10.0), 0.25 * expected)


@pytest.mark.parametrize('form, factor', [('sum', 2), ('mean', 1)])
@pytest.mark.parametrize('smoothing', [0.0, 0.1])
def test_class_wise_module(form, factor, smoothing):
    image, text = features(8)
    labels = torch.tensor(LABELS)
    module = MODELS.build(dict(type='mmlt.CCLLoss', form=form, label_smoothing=smoothing, loss_weight=0.25))
    expected = 0.25 * factor * naive(image, text, labels, 10.0, smoothing)
    assert (module(image, text, labels, 10.0) - expected).abs() <= 1e-12
    assert torch.equal(CCLLoss()(image, text, labels, 10.0), 2 * ContrastiveLoss()(image, text, labels, 10.0))


@pytest.mark.parametrize('form, factor', [('pair', 2), ('full', 1)])
def test_distillation_module(form, factor):
    image, text = features(8)
    teacher = features(8, seed=1)
    module = MODELS.build(dict(type='mmlt.ImageTextDistillLoss', form=form, loss_weight=0.5))
    expected = 0.5 * factor * naive_distillation(image, text, *teacher, 10.0, 20.0, form)
    assert (module(image, text, *teacher, 10.0, 20.0) - expected).abs() <= 1e-12
    assert ImageTextDistillLoss().form == 'pair'


def test_other_forms_are_refused():
    with pytest.raises(InputError, match=r"CCLLoss: form is 'max'; choose 'sum' \(the paper\) or 'mean'"):
        CCLLoss(form='max')
    with pytest.raises(InputError, match=r"ImageTextDistillLoss: form is 'row'; choose 'pair' \(the paper\) or 'full'"):
        ImageTextDistillLoss(form='row')


def test_gathering_in_one_process_is_the_tensor_itself():
    x = torch.randn(2, 3)
    assert gather(x) is x


# Several processes

FORMS = {
    'ccl': lambda i, t, ti, tt, y, s: contrastive_loss(i, t, y, s),
    'ccl smoothed': lambda i, t, ti, tt, y, s: CCLLoss(label_smoothing=0.1)(i, t, y, s),
    'pair': lambda i, t, ti, tt, y, s: ImageTextDistillLoss('pair')(i, t, ti, tt, s, s),
    'full': lambda i, t, ti, tt, y, s: ImageTextDistillLoss('full')(i, t, ti, tt, s, 20.0),
    'cvlp': lambda i, t, ti, tt, y, s: (
        0.3 * CCLLoss()(i, t, y, s) + 0.7 * ImageTextDistillLoss('full')(i, t, ti, tt, s, s)
    ),
    'ccl in tiles': lambda i, t, ti, tt, y, s: contrastive_loss(i, t, y, s, 0.1, max_logits=9),
    'pair in tiles': lambda i, t, ti, tt, y, s: distillation_loss(i, t, ti, tt, s, 9.0, 'pair', max_logits=9),
    'full in tiles': lambda i, t, ti, tt, y, s: distillation_loss(i, t, ti, tt, s, 9.0, 'full', max_logits=20),
}


class TwoTowers(nn.Module):
    def __init__(self):
        super().__init__()
        self.image, self.text = nn.Linear(5, 6), nn.Linear(4, 6)
        self.log_scale = nn.Parameter(torch.tensor(2.0))

    def forward(self, image, text, labels, form='ccl'):
        teacher = (F.normalize(x @ x.new_ones(x.shape[1], 3).tril(), dim=-1) for x in (image, text))
        image, text = F.normalize(self.image(image), dim=-1), F.normalize(self.text(text), dim=-1)
        return FORMS[form](image, text, *teacher, labels, self.log_scale.exp())


def pairs_and_model():
    generator = torch.Generator().manual_seed(5)
    image, text = (torch.randn(8, d, dtype=torch.float64, generator=generator) for d in (5, 4))
    torch.manual_seed(6)
    return image, text, torch.tensor(LABELS), TwoTowers().double()


def _process(rank, folder):
    """One of four processes, the first two of which then work as two."""
    for world_size in (4, 2):
        if rank < world_size:
            _work(rank, world_size, f'{folder}/{world_size}')


def _work(rank, world_size, folder):
    """This process's part of the batch through DDP, and then a batch of another size."""
    dist.init_process_group('gloo', init_method=f'file://{folder}/store', rank=rank, world_size=world_size)
    image, text, labels, model = pairs_and_model()
    size = 8 // world_size
    rows = slice(size * rank, size * (rank + 1))
    parallel = nn.parallel.DistributedDataParallel(model)  # averages only as long as it lives
    losses, gradients = {}, {}
    for form in FORMS:
        model.zero_grad()
        loss = parallel(image[rows], text[rows], labels[rows], form)
        loss.backward()
        losses[form] = loss.detach()
        gradients[form] = {name: p.grad.clone() for name, p in model.named_parameters()}
    try:
        # As if the processes spoke by NCCL, which cannot send from the host's memory.
        with mock.patch.object(dist, 'get_backend_config', lambda: 'cuda:nccl'):
            check_sizes(labels[rows])
            check_sizes(image, labels[: 3 if rank else 4])
    except InputError as e:
        host = str(e)
    gathered = gather(image[rows]), gather(labels[rows])
    errors = []
    unequal = [x[: 2 if rank else 1] for x in features(8)]
    for function in (
        lambda: contrastive_loss(*unequal, labels[: len(unequal[0])], 1.0),
        lambda: distillation_loss(*unequal, *unequal, 1.0, 1.0),
    ):
        try:
            function()
        except InputError as e:
            errors.append(str(e))
    results = dict(losses=losses, gradients=gradients, gathered=gathered, errors=errors, host=host)
    torch.save(results, f'{folder}/{rank}.pt')
    del parallel  # it holds the group
    leave_together()


@pytest.fixture(scope='module')
def outcome(tmp_path_factory):
    """A folder with what four, and what two gloo processes computed."""
    folder = tmp_path_factory.mktemp('gloo')
    for name in ('2', '4'):
        (folder / name).mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv('OMP_NUM_THREADS', '1')
        mp.spawn(_process, (str(folder),), nprocs=4)
    return folder


@pytest.fixture(params=[2, 4])
def processes(request, outcome):
    """What each of several processes computed."""
    return [torch.load(outcome / str(request.param) / f'{rank}.pt') for rank in range(request.param)]


@pytest.mark.parametrize('form', FORMS)
def test_several_processes_give_loss_and_gradients_of_one(processes, form):
    image, text, labels, model = pairs_and_model()
    expected = model(image, text, labels, form)
    expected.backward()
    losses = torch.stack([result['losses'][form] for result in processes])
    assert (losses.mean() - expected).abs() <= 1e-12
    assert losses.std() > 1e-4  # each has only its own rows
    for name, p in model.named_parameters():
        assert p.grad.abs().max() > 1e-4
        for result in processes:
            assert (result['gradients'][form][name] - p.grad).abs().max() <= 1e-12, name


def test_features_and_labels_are_gathered_in_the_order_of_ranks(processes):
    image, _, labels, _ = pairs_and_model()
    for result in processes:
        assert torch.equal(result['gathered'][0], image)
        assert torch.equal(result['gathered'][1], labels)


def test_unequal_batches_are_refused(processes):
    sizes = [1] + [2] * (len(processes) - 1)
    for result in processes:
        assert len(result['errors']) == 2
        for error in result['errors']:
            assert f'equal batches in all processes, but they are {sizes}: set drop_last=True' in error


def test_sizes_are_told_from_host_to_host(processes):
    for result in processes:
        assert f'but they are {[4] + [3] * (len(processes) - 1)}: set drop_last=True' in result['host']

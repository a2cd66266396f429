"""The contrastive loss against a naive matrix form, open_clip's loss, and one process against two."""

import importlib
from pathlib import Path

import open_clip
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
import torch.nn.functional as F
from mmpretrain.registry import MODELS
from torch import nn

from mmlt import InputError
from mmlt.models import ContrastiveLoss
from mmlt.models.losses import class_means, contrastive_loss
from mmlt.utils import gather_with_grad

LABELS = [0, 3, 3, 1, 0, 3, 7, 2]


def naive(image, text, labels, scale):
    """Cross-entropy of both softmaxes with the target matrix [y_i = y_j] / n_{y_i}."""
    n = len(labels)
    targets = torch.zeros(n, n, dtype=image.dtype)
    for i in range(n):
        for j in range(n):
            if labels[i] == labels[j]:
                targets[i, j] = 1 / sum(int(y == labels[i]) for y in labels)
    logits = torch.stack([torch.stack([scale * torch.dot(f, t) for t in text]) for f in image])
    total = 0
    for matrix in (logits, logits.t()):
        for i in range(n):
            total = total - (targets[i] * (matrix[i] - matrix[i].exp().sum().log())).sum() / n
    return total / 2


def features(n, width=6, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [
        F.normalize(torch.randn(n, width, dtype=torch.float64, generator=generator), dim=-1).requires_grad_()
        for _ in range(2)
    ]


@pytest.mark.parametrize('labels', [LABELS, [4] * 8, list(range(8)), [-1, 5, 5, 5, 9, 10**12, 10**12, -1]])
@pytest.mark.parametrize('scale', [1.0, 14.3, 100.0])
def test_class_wise_loss_is_the_matrix_form(labels, scale):
    image, text = features(8)
    labels, scale = torch.tensor(labels), torch.tensor(scale, dtype=torch.float64, requires_grad=True)
    expected, actual = naive(image, text, labels, scale), contrastive_loss(image, text, labels, scale)
    assert actual.ndim == 0
    assert (actual - expected).abs() <= 1e-12 * expected.abs().clamp(min=1)
    inputs = (image, text, scale)
    for a, b in zip(torch.autograd.grad(actual, inputs), torch.autograd.grad(expected, inputs)):
        assert b.abs().max() > 1e-6
        assert (a - b).abs().max() <= 1e-12 * b.abs().max().clamp(min=1)


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


def test_gathering_in_one_process_is_the_tensor_itself():
    x = torch.randn(2, 3)
    assert gather_with_grad(x) is x


# Two processes


class TwoTowers(nn.Module):
    def __init__(self):
        super().__init__()
        self.image, self.text = nn.Linear(5, 6), nn.Linear(4, 6)
        self.log_scale = nn.Parameter(torch.tensor(2.0))

    def forward(self, image, text, labels):
        image, text = F.normalize(self.image(image), dim=-1), F.normalize(self.text(text), dim=-1)
        return contrastive_loss(image, text, labels, self.log_scale.exp())


def pairs_and_model():
    generator = torch.Generator().manual_seed(5)
    image, text = (torch.randn(8, d, dtype=torch.float64, generator=generator) for d in (5, 4))
    torch.manual_seed(6)
    return image, text, torch.tensor(LABELS), TwoTowers().double()


def _process(rank, folder):
    """One of two processes: its half of the batch through DDP, and then a batch of another size."""
    dist.init_process_group('gloo', init_method=f'file://{folder}/store', rank=rank, world_size=2)
    image, text, labels, model = pairs_and_model()
    rows = slice(4 * rank, 4 * rank + 4)
    parallel = nn.parallel.DistributedDataParallel(model)  # averages only as long as it lives
    loss = parallel(image[rows], text[rows], labels[rows])
    loss.backward()
    gathered = gather_with_grad(image[rows]), gather_with_grad(labels[rows])
    try:
        contrastive_loss(*(x[: 3 - rank] for x in features(8)), labels[: 3 - rank], 1.0)
        error = 'none'
    except InputError as e:
        error = str(e)
    gradients = {name: p.grad for name, p in model.named_parameters()}
    torch.save(dict(loss=loss.detach(), gradients=gradients, gathered=gathered, error=error), f'{folder}/{rank}.pt')
    dist.destroy_process_group()


@pytest.fixture(scope='module')
def two_processes(tmp_path_factory):
    """What two gloo processes computed."""
    folder = tmp_path_factory.mktemp('gloo')
    with pytest.MonkeyPatch.context() as patch:
        # The children import this file by its plain name, wherever pytest was started.
        patch.syspath_prepend(str(Path(__file__).parent))
        patch.setenv('OMP_NUM_THREADS', '1')
        mp.spawn(importlib.import_module(Path(__file__).stem)._process, (str(folder),), nprocs=2)
    return [torch.load(folder / f'{rank}.pt') for rank in range(2)]


def test_two_processes_give_the_loss_of_one(two_processes):
    image, text, labels, model = pairs_and_model()
    expected = model(image, text, labels)
    losses = torch.stack([result['loss'] for result in two_processes])
    assert (losses.mean() - expected).abs() <= 1e-12
    assert (losses[0] - losses[1]).abs() > 1e-3  # each has only its own rows


def test_two_processes_give_the_gradients_of_one(two_processes):
    image, text, labels, model = pairs_and_model()
    model(image, text, labels).backward()
    for name, p in model.named_parameters():
        assert p.grad.abs().max() > 1e-4
        for result in two_processes:
            assert (result['gradients'][name] - p.grad).abs().max() <= 1e-12, name


def test_features_and_labels_are_gathered_in_the_order_of_ranks(two_processes):
    image, _, labels, _ = pairs_and_model()
    for result in two_processes:
        assert torch.equal(result['gathered'][0], image)
        assert torch.equal(result['gathered'][1], labels)


def test_unequal_batches_are_refused(two_processes):
    for result in two_processes:
        assert 'equal batches in all processes, but they are [3, 2]: set drop_last=True' in result['error']

"""The contrastive loss against the whole matrix, as published, and against plain autograd: time and peak memory.

    python tools/benchmarks/ccl.py [--ranks 8] [--batch 2048] [--dim 512] [--rounds 7] [--device cuda]
    python tools/benchmarks/ccl.py --batch 32768 --rounds 1 --only-ours

First one process that has the whole batch, then one of several. The other ranks are simulated: their features lie
there, and gathering costs nothing for either. Forward and backward; on a CPU the processor's time of one thread.
"""

import argparse
import time
from unittest import mock

import torch
import torch.nn.functional as F

from mmlt.benchmarks.common import compare, peak_memory
from mmlt.models.losses import contrastive, contrastive_functional, contrastive_loss, distillation_loss


def leaves(*tensors):
    return [x.detach().requires_grad_() for x in tensors]


def whole_matrix(image, text, labels, logit_scale, own):
    """Logits and targets of the global batch in every rank; the own rows carry the gradient."""
    local_image, local_text = leaves(image[own], text[own])
    if len(local_image) < len(image):
        image, text = image.clone(), text.clone()
        image[own], text[own] = local_image, local_text
    else:
        image, text = local_image, local_text
    logits = logit_scale * image @ text.t()
    targets = (labels[:, None] == labels[None, :]).float()
    targets = targets / targets.sum(1, keepdim=True)
    loss = -(targets * logits.log_softmax(1)).sum(1).mean() - (targets * logits.t().log_softmax(1)).sum(1).mean()
    (loss / 2).backward()


def plain_autograd(image, text, labels, logit_scale):
    """One process without a matrix of labels; autograd keeps what it likes."""
    image, text = leaves(image, text)
    logits = logit_scale * image @ text.t()
    matched = (image * contrastive.class_means(text, labels)).sum(1)
    ((logits.logsumexp(1) + logits.logsumexp(0)) / 2 - logit_scale * matched).mean().backward()


def plain_distillation(image, text, soft_image, soft_text, logit_scale):
    """Soft cross-entropy over whole rows, both directions."""
    image, text = leaves(image, text)
    logits, soft = logit_scale * image @ text.t(), 30.0 * soft_image @ soft_text.t()
    losses = [-(soft.softmax(dim) * logits.log_softmax(dim)).sum(dim).mean() for dim in (0, 1)]
    (sum(losses) / 2).backward()


def own_rows(image, text, labels, logit_scale, own, offsets):
    """contrastive_loss as rank 0 of several processes computes it."""
    local_image, local_text = leaves(image[own], text[own])
    gathered = iter([image, text, labels])
    world_size = len(image) // len(local_image)
    with (
        mock.patch.object(contrastive, 'gather', lambda *_, **__: next(gathered)),
        mock.patch.object(contrastive_functional, 'gather', lambda *_, **__: offsets),
        mock.patch.object(contrastive, 'get_world_size', lambda: world_size),
        mock.patch.object(contrastive_functional, 'get_world_size', lambda: world_size),
    ):
        contrastive_loss(local_image, local_text, labels[own], logit_scale).backward()


def gpu_peak_memory(run):
    """MB beyond what is there before."""
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    run()
    torch.cuda.synchronize()
    return (torch.cuda.max_memory_allocated() - before) / 1e6


def report(title, variants, args):
    """Time and memory of variants; what does not fit into the memory is left out."""
    if args.only_ours:
        variants = {name: run for name, run in variants.items() if '_loss' in name}
    clock, measure = time.process_time, peak_memory
    if args.device == 'cuda':
        measure = gpu_peak_memory

        def clock():
            torch.cuda.synchronize()
            return time.perf_counter()

    memory = {}
    for name, run in list(variants.items()):
        try:
            memory[name] = measure(run)
        except torch.cuda.OutOfMemoryError:
            print(f'{name}: out of memory')
            del variants[name]
            torch.cuda.empty_cache()
    compare(title, variants, args.rounds, clock, memory)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--ranks', type=int, default=8)
    parser.add_argument('--batch', type=int, default=2048, help='global batch')
    parser.add_argument('--dim', type=int, default=512)
    parser.add_argument('--classes', type=int, default=1000)
    parser.add_argument('--rounds', type=int, default=7)
    parser.add_argument('--device', default='cuda' if torch.cuda.is_available() else 'cpu')
    parser.add_argument('--only-ours', action='store_true', help='where the plain forms have no memory')
    args = parser.parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(1)
    features = (F.normalize(torch.randn(args.batch, args.dim), dim=-1).to(args.device) for _ in range(4))
    image, text, soft_image, soft_text = features
    labels = torch.randint(args.classes, (args.batch,)).to(args.device)
    logit_scale = torch.tensor(14.3, device=args.device, requires_grad=True)
    own, whole = slice(0, args.batch // args.ranks), slice(0, args.batch)
    with torch.no_grad():
        sides = contrastive.Batch(image, text).sides(logit_scale * image, logit_scale * text)
        sums = contrastive_functional.scan_both(sides)
    offsets = -torch.stack([x.hard for x in sums], 1)
    shape = f'batch {args.batch}, D {args.dim}'
    in_one = {
        'whole matrix': lambda: whole_matrix(image, text, labels, logit_scale, whole),
        'plain autograd': lambda: plain_autograd(image, text, labels, logit_scale),
        'contrastive_loss': lambda: contrastive_loss(*leaves(image, text), labels, logit_scale).backward(),
    }
    report(f'one process, {shape}', in_one, args)
    teacher = soft_image, soft_text, logit_scale
    distillation = {
        'plain autograd': lambda: plain_distillation(image, text, *teacher),
        "distillation_loss, 'full'": lambda: distillation_loss(*leaves(image, text), *teacher, 30.0, 'full').backward(),
        "distillation_loss, 'pair'": lambda: distillation_loss(*leaves(image, text), *teacher, 30.0, 'pair').backward(),
    }
    report(f'distillation in one process, {shape}', distillation, args)
    in_several = {
        'whole matrix in every rank': lambda: whole_matrix(image, text, labels, logit_scale, own),
        'own rows (contrastive_loss)': lambda: own_rows(image, text, labels, logit_scale, own, offsets),
    }
    report(f'one of {args.ranks} ranks, global {shape}', in_several, args)

"""One rank's part of the class-wise contrastive loss: the whole matrix, as published, against its own rows.

    python tools/benchmarks/ccl.py [--ranks 8] [--batch 2048] [--dim 512] [--rounds 7]

The other ranks are simulated: their features lie there, and gathering costs nothing for either. Forward and backward,
processor time of one thread, peak memory.
"""

import argparse
import os.path as osp
import sys
import time
from unittest import mock

sys.path.insert(0, osp.dirname(osp.dirname(osp.dirname(osp.abspath(__file__)))))

import torch
import torch.nn.functional as F
from common import compare, peak_memory

from mmlt.models.losses import contrastive


def whole_matrix(image, text, labels, scale, own):
    """Logits and targets of the global batch in every rank; the own rows carry the gradient."""
    local_image, local_text = image[own].detach().requires_grad_(), text[own].detach().requires_grad_()
    image, text = image.clone(), text.clone()
    image[own], text[own] = local_image, local_text
    logits = scale * image @ text.t()
    targets = (labels[:, None] == labels[None, :]).float()
    targets = targets / targets.sum(1, keepdim=True)
    loss = -(targets * logits.log_softmax(1)).sum(1).mean() - (targets * logits.t().log_softmax(1)).sum(1).mean()
    (loss / 2).backward()


def own_rows(image, text, labels, scale, own, log_sums):
    """contrastive_loss as rank 0 of several processes computes it."""
    local_image, local_text = image[own].detach().requires_grad_(), text[own].detach().requires_grad_()
    gathered = iter([image, text, labels, *log_sums])
    with (
        mock.patch.object(contrastive, 'gather', lambda _: next(gathered)),
        mock.patch.object(contrastive, 'get_world_size', lambda: len(image) // len(local_image)),
    ):
        contrastive.contrastive_loss(local_image, local_text, labels[own], scale).backward()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--ranks', type=int, default=8)
    parser.add_argument('--batch', type=int, default=2048, help='global batch')
    parser.add_argument('--dim', type=int, default=512)
    parser.add_argument('--classes', type=int, default=1000)
    parser.add_argument('--rounds', type=int, default=7)
    args = parser.parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(1)
    image, text = (F.normalize(torch.randn(args.batch, args.dim), dim=-1) for _ in range(2))
    labels = torch.randint(args.classes, (args.batch,))
    scale = torch.tensor(14.3, requires_grad=True)
    own = slice(0, args.batch // args.ranks)
    logits = scale.detach() * image @ text.t()
    log_sums = logits.logsumexp(1), logits.logsumexp(0)
    del logits
    variants = {
        'whole matrix in every rank': lambda: whole_matrix(image, text, labels, scale, own),
        'own rows (contrastive_loss)': lambda: own_rows(image, text, labels, scale, own, log_sums),
    }
    compare(
        f'global batch {args.batch}, {args.ranks} ranks, D {args.dim}',
        variants,
        args.rounds,
        time.process_time,
        {name: peak_memory(run) for name, run in variants.items()},
    )


if __name__ == '__main__':
    main()

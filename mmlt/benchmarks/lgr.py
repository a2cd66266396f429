"""The language branch of the LGR head: Eq. 4-7 as they stand against the form without keys and G.

    python tools/benchmarks/lgr.py [--batch 128] [--classes 1000] [--anchors 64] [--dim 512] [--rounds 5]
    python tools/benchmarks/lgr.py --classes 8142 --only-ours      # the shape of iNaturalist: time and memory

Processor time of one thread (OMP_NUM_THREADS=1) and peak memory above the tables.
"""

import argparse
import time

import torch
import torch.nn.functional as F
from torch import nn

from mmlt.benchmarks.common import compare, peak_memory
from mmlt.models.heads.lgr_functional import AnchorTable, fold_query, text_similarity


class Branch(nn.Module):
    """The parameters of Eq. 4 and 5."""

    def __init__(self, dim: int):
        super().__init__()
        self.norm_query, self.norm_key = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.query, self.key = nn.Linear(dim, dim), nn.Linear(dim, dim, bias=False)


def as_published(branch: Branch, image, values):
    """Keys, attention and G as tensors of their own."""
    query = branch.query(branch.norm_query(image))
    keys = branch.key(branch.norm_key(values))
    attention = (torch.einsum('bd,cmd->bcm', query, keys) * image.shape[-1] ** -0.5).softmax(-1)
    gathered = torch.einsum('bcm,cmd->bcd', attention, values)
    return torch.einsum('bd,bcd->bc', F.normalize(image, dim=-1), F.normalize(gathered, dim=-1))


def ours(branch: Branch, image, table):
    folded = fold_query(branch.query(branch.norm_query(image)), branch.key.weight, branch.norm_key.weight)
    return text_similarity(folded, F.normalize(image, dim=-1), table)


def parse_args(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--batch', type=int, default=128)
    parser.add_argument('--classes', type=int, default=1000)
    parser.add_argument('--anchors', type=int, default=64)
    parser.add_argument('--dim', type=int, default=512)
    parser.add_argument('--rounds', type=int, default=5)
    parser.add_argument('--only-ours', action='store_true', help='leave out the form that needs much memory')
    parser.add_argument('--compile', action='store_true', help='also the published form under torch.compile')
    parser.add_argument('--bf16', action='store_true', help='also the published form under bfloat16 autocast')
    return parser.parse_args(argv)


def main():
    args = parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(1)
    values = torch.randn(args.classes, args.anchors, args.dim)
    image = torch.randn(args.batch, args.dim, requires_grad=True)
    labels = torch.randint(args.classes, (args.batch,))
    branch = Branch(args.dim)
    table = AnchorTable(values, torch.full((args.classes,), args.anchors))

    def step(function, *inputs):
        return lambda: F.cross_entropy(20 * function(branch, image, *inputs), labels).backward()

    def evaluate(function, *inputs):
        def run():
            with torch.no_grad():
                function(branch, image, *inputs)

        return run

    published = {} if args.only_ours else {'Eq. 4-7 as they stand': (as_published, values)}
    if args.compile:
        published['the same, torch.compile'] = (torch.compile(as_published), values)
    if args.bf16:

        def half(*inputs):
            with torch.autocast('cpu', torch.bfloat16):
                return as_published(*inputs)

        published['the same, bfloat16'] = (half, values)
    variants = {**published, 'LGRHead': (ours, table)}
    shape = f'B {args.batch}, C {args.classes}, M {args.anchors}, D {args.dim}'
    tables = {
        what: {name: make(*v) for name, v in variants.items()}
        for what, make in (('forward + backward', step), ('evaluation', evaluate))
    }
    # In processes that are forked before autograd starts its threads here; compiling needs memory of its own.
    memory = {
        what: {name: peak_memory(run) for name, run in runs.items() if 'compile' not in name}
        for what, runs in tables.items()
    }
    for what, runs in tables.items():
        compare(f'{what}, {shape}', runs, args.rounds, time.process_time, memory[what])

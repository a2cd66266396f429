"""Memory of a training step by tower and by way of training, computed: nothing is trained, no weights are needed.

    python tools/benchmarks/memory.py [--models RN50 ViT-B-16 ...] [--batch 128] [--processes 2 8]
    python tools/benchmarks/memory.py --measure mmlt-tiny-vit --batch 8

The towers are built without numbers (PyTorch's meta device) in bfloat16, both are run on a batch for each process, and
every tensor that autograd keeps for the backward pass is counted once. `--measure` runs them on the CPU instead, in
single precision, and compares what is kept there with what is computed. docs/scaling.md explains the table.
"""

import argparse
import logging
from collections import Counter
from dataclasses import dataclass

import open_clip
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmlt.engine.sharding import blocks

MODELS = ('RN50', 'ViT-B-16', 'ViT-L-14', 'ViT-SO400M-14-SigLIP', 'ViT-H-14')
GB = 1e9


@dataclass
class Facts:
    """Numbers of parameters, and bytes of activations of one batch.

    Args:
        parameters (int): All parameters of both towers.
        units (list[tuple[int, bool]]): Parameters of every block, and whether
            it runs with weights in half precision in a training in parts.
        activations (int): What is kept for the backward pass.
        recomputed (int): The same with activation checkpointing of the blocks:
            their inputs, the largest block, and what is no block.
    """

    parameters: int
    units: list[tuple[int, bool]]
    activations: int
    recomputed: int


class _FusedAttention(torch.autograd.Function):
    """What fused attention keeps: queries, keys, values, its output and a sum for every query; no numbers."""

    @staticmethod
    def forward(ctx, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        out = torch.empty_like(q)
        ctx.save_for_backward(q, k, v, out, q.new_empty(q.shape[:-1], dtype=torch.float32))
        return out


class Kept:
    """Inside, bytes that autograd keeps are counted for the block that runs, every storage once.

    Args:
        model (nn.Module): Its own parameters and buffers are not counted.
    """

    def __init__(self, model: nn.Module):
        self.units = blocks(model)
        self.kept, self.inputs = Counter[nn.Module | None](), Counter[nn.Module]()
        self._running: list[nn.Module] = []
        self._seen = {self._key(t): t for t in (*model.parameters(), *model.buffers())}
        self._hooks = torch.autograd.graph.saved_tensors_hooks(self._keep, lambda tensor: tensor)

    @staticmethod
    def _key(tensor: Tensor) -> int:
        return tensor.untyped_storage()._cdata

    def _keep(self, tensor: Tensor) -> Tensor:
        if self._key(tensor) not in self._seen:
            self._seen[self._key(tensor)] = tensor  # alive, so that no other storage gets its place
            self.kept[self._running[-1] if self._running else None] += tensor.untyped_storage().nbytes()
        return tensor

    def _begin(self, unit: nn.Module, args: tuple) -> None:
        self._running.append(unit)
        self.inputs[unit] += sum(x.numel() * x.element_size() for x in args if isinstance(x, Tensor))

    def __enter__(self):
        self._handles = [unit.register_forward_pre_hook(self._begin) for unit in self.units]
        self._handles += [unit.register_forward_hook(lambda *_: self._running.pop() and None) for unit in self.units]
        self._hooks.__enter__()
        return self

    def __exit__(self, *error):
        self._hooks.__exit__(*error)
        for handle in self._handles:
            handle.remove()


def count(name: str, batch: int, device: str = 'meta') -> Facts:
    """Build both towers, run a batch of images and as many texts, and count.

    Args:
        name (str): Of an open_clip model.
        batch (int): Images, and texts of full length.
        device (str): 'meta' computes, 'cpu' measures. Defaults to 'meta'.

    Returns:
        Facts: Of that model; on 'meta' the activations are in bfloat16.
    """
    logging.disable(logging.WARNING)
    model = open_clip.create_model(name, load_weights=False, pretrained_text=False, device=device).train()
    logging.disable(logging.NOTSET)
    plain = F.scaled_dot_product_attention
    if device == 'meta':
        model.to(torch.bfloat16)
        F.scaled_dot_product_attention = lambda q, k, v, *args, **kwargs: _FusedAttention.apply(q, k, v)
    images = torch.zeros(batch, 3, *_size(model), device=device, dtype=next(model.parameters()).dtype)
    tokens = torch.zeros(batch, model.context_length, dtype=torch.long, device=device)
    try:
        with Kept(model) as kept:
            outputs = model.encode_image(images), model.encode_text(tokens)
    finally:
        F.scaled_dot_product_attention = plain
    del outputs
    own = [sum(p.numel() for p in unit.parameters()) for unit in kept.units]
    half = [not any(b.is_floating_point() for b in unit.buffers()) for unit in kept.units]
    largest = max(kept.kept[unit] for unit in kept.units)
    return Facts(
        parameters=sum(p.numel() for p in model.parameters()),
        units=list(zip(own, half)),
        activations=sum(kept.kept.values()),
        recomputed=kept.kept[None] + sum(kept.inputs.values()) + largest,
    )


def _size(model: open_clip.CLIP | open_clip.CustomTextCLIP) -> tuple[int, int]:
    size = model.visual.image_size
    return size if isinstance(size, tuple) else (size, size)


def ddp(facts: Facts) -> float:
    """Bytes of DDP beside activations: weights, gradients, two moments, buckets (4 each), copies in half precision."""
    return (4 + 4 + 8 + 4 + 2) * facts.parameters


def fsdp(facts: Facts, processes: int) -> float:
    """Bytes of FSDP beside activations.

    A part of weights, gradients and moments; what is no block whole, with its
    gradients and copies in half precision; two blocks that are gathered, and
    the gradients of one with what is sent of them.
    """
    rest = facts.parameters - sum(number for number, _ in facts.units)
    gathered = sorted(number * (2 if half else 4) for number, half in facts.units)[-2:]
    largest = max(number for number, _ in facts.units)
    return 16 * facts.parameters / processes + (4 + 4 + 2) * rest + sum(gathered) + gathered[-1] + 4 * largest


def rows(models: list[str], batch: int, processes: list[int]) -> list[list[str]]:
    """The table, a header first."""
    ways = ['DDP', *(f'FSDP, {n} processes' for n in processes)]
    table = [['towers', 'parameters', 'activations', 'recomputed', *(f'{w} {r}' for w in ways for r in ('', '+ rec.'))]]
    for name in models:
        facts = count(name, batch)
        fixed = [ddp(facts), *(fsdp(facts, n) for n in processes)]
        cells = [one + more for one in fixed for more in (facts.activations, facts.recomputed)]
        sizes = [facts.activations, facts.recomputed, *cells]
        table.append([name, f'{facts.parameters / 1e6:.0f} M', *(f'{x / GB:.1f}' for x in sizes)])
    return table


def markdown(table: list[list[str]]) -> str:
    """A table in Markdown."""
    lines = ['| ' + ' | '.join(cell.strip() for cell in row) + ' |' for row in table]
    lines.insert(1, '|---|' + '---:|' * (len(table[0]) - 1))
    return '\n'.join(lines)


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--models', nargs='+', default=list(MODELS))
    parser.add_argument('--batch', type=int, default=128, help='pairs of image and text in each process')
    parser.add_argument('--processes', type=int, nargs='+', default=[2, 8])
    parser.add_argument('--measure', metavar='MODEL', help='compare with what is kept on the CPU')
    return parser.parse_args()


def main():
    args = parse_args()
    if args.measure:
        computed, measured = (count(args.measure, args.batch, device) for device in ('meta', 'cpu'))
        half, single = computed.activations / 1e6, measured.activations / 1e6
        print(
            f'{args.measure}, {args.batch} pairs, activations: computed in bfloat16 {half:.2f} MB '
            f'(x2: {2 * half:.2f}), measured in single precision {single:.2f}'
        )
        return
    print(f'Computed, GB of each process, {args.batch} pairs each, bfloat16, AdamW:\n')
    print(markdown(rows(args.models, args.batch, args.processes)))

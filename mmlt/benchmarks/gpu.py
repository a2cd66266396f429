"""What a training is made of, on the device that is there: checked against float64, timed against the plain forms.

    python tools/benchmarks/gpu.py            # ViT-B/16 shapes, for a GPU; a few minutes
    python tools/benchmarks/gpu.py --quick    # tiny shapes, on any machine
    python tools/benchmarks/gpu.py --only steps losses

Weights and pictures are random. Every part is first compared with a plain float64 version of itself on a small input;
then variants are timed in turn in one process, the first being the plain form, and the table gives medians, ratios and,
where it is known, TFLOP/s and the share of what the device's matrix products were measured to reach.
"""

from __future__ import annotations

import argparse
import copy
import functools
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from statistics import median

import open_clip
import torch
import torch.nn.functional as F
from mmengine.model import BaseModel
from mmengine.optim import build_optim_wrapper
from mmpretrain.registry import MODELS
from mmpretrain.structures import DataSample
from rich.console import Console
from rich.table import Table

from mmlt.benchmarks.lgr import Branch, as_published, ours
from mmlt.engine.precision import fused_optimizer
from mmlt.models import OpenCLIPText, OpenCLIPVision
from mmlt.models.heads.lgr_functional import AnchorTable
from mmlt.models.losses import contrastive_loss, distillation_loss
from mmlt.models.text import class_prompts, encode_text, equal_groups, few_groups
from mmlt.utils.class_info import ClassInfo

WORDS = 'of a long and winding road with many trees beside it that a photographer saw one day in spring'


@dataclass
class Shapes:
    """Sizes of everything that is timed."""

    model: str = 'ViT-B-16'
    size: int = 224
    images: int = 512
    prompts: tuple[int, ...] = (64, 256, 1000, 4096)
    pairs: tuple[int, ...] = (2048, 8192, 32768)
    lgr: tuple[tuple[int, int], ...] = ((128, 1000), (1024, 1000))
    anchors: int = 64
    cvlp: tuple[int, ...] = (256, 1024)
    phase_a: int = 512
    classes: int = 1000
    matrix: int = 8192
    rounds: int = 7


QUICK = Shapes('mmlt-tiny-vit', 32, 8, (12, 40), (64, 256), ((4, 12),), 6, (8,), 8, 20, 256, 2)


@dataclass
class Bench:
    """Times variants in turn and keeps the rows of the table."""

    device: torch.device
    rounds: int
    peak: float = 0.0  # TFLOP/s of matrix products
    compile: bool | dict = True
    rows: list[tuple] = field(default_factory=list)

    def wait(self) -> None:
        if self.device.type == 'cuda':
            torch.cuda.synchronize()

    def time(self, run: Callable[[], object]) -> float:
        self.wait()
        start = time.perf_counter()
        run()
        self.wait()
        return time.perf_counter() - start

    def compare(self, title: str, variants: Mapping[str, Callable[[], object]], flops: float = 0.0) -> None:
        """Time the variants; one that runs out of memory is left out and says so."""
        times, memory = dict[str, list[float]](), dict[str, float]()
        for name, run in variants.items():
            try:
                if self.device.type == 'cuda':
                    torch.cuda.empty_cache()
                    torch.cuda.reset_peak_memory_stats()
                before = torch.cuda.memory_allocated() if self.device.type == 'cuda' else 0
                for _ in range(3):
                    run()
                self.wait()
                if self.device.type == 'cuda':
                    memory[name] = (torch.cuda.max_memory_allocated() - before) / 2**30
                times[name] = []
            except torch.OutOfMemoryError:
                self.rows.append((title, name, 'out of memory', '', '', '', ''))
                title = ''
        for _ in range(self.rounds):
            for name in times:
                times[name].append(self.time(variants[name]))
        first = next(iter(times), None)
        for name, own in times.items():
            ratio = median(a / b for a, b in zip(times[first], own))
            rate = flops / median(own) / 1e12
            self.rows.append(
                (
                    title,
                    name,
                    f'{1e3 * median(own):.2f}',
                    f'{ratio:.2f}',
                    f'{memory[name]:.2f}' if name in memory else '',
                    f'{rate:.1f}' if flops else '',
                    f'{rate / self.peak:.0%}' if flops and self.peak else '',
                )
            )
            title = ''

    def print(self, shapes: Shapes) -> None:
        name = torch.cuda.get_device_name() if self.device.type == 'cuda' else 'CPU'
        title = (
            f'{name}, torch {torch.__version__}, {shapes.model}, matrix products in bfloat16 {self.peak:.1f} TFLOP/s'
        )
        table = Table(title=title, title_justify='left')
        for column in ('part', 'variant', 'median ms', 'times faster', 'peak GiB', 'TFLOP/s', 'of the peak'):
            table.add_column(column, justify='left' if column in ('part', 'variant') else 'right')
        for row in self.rows:
            table.add_row(*row)
        console = Console()
        if not console.is_terminal:
            console.width = 140
        console.print(table)


def check(name: str, found: torch.Tensor, expected: torch.Tensor, tolerance: float) -> None:
    """Stop where a part is not what it should be."""
    error = ((found.double().cpu() - expected.cpu()).abs().max() / expected.abs().max()).item()
    if not error <= tolerance:
        raise SystemExit(f'{name}: the relative error against float64 is {error:.1e}, more than {tolerance:.0e}.')
    print(f'{name}: relative error against float64 {error:.1e}')


def autocast(device: torch.device):
    return torch.autocast(device.type, torch.bfloat16)


def matrix_products(bench: Bench, shapes: Shapes) -> None:
    n = shapes.matrix
    for dtype, name in ((torch.bfloat16, 'bfloat16'), (torch.float32, 'float32')):
        a, b = (torch.randn(n, n, device=bench.device, dtype=dtype) for _ in range(2))
        product = functools.partial(torch.matmul, a, b)
        product()
        seconds = min(bench.time(product) for _ in range(10))
        bench.peak = bench.peak or 2 * n**3 / seconds / 1e12
        bench.compare(f'product {n}^3, {name}', {name: product}, 2 * n**3)


def towers(bench: Bench, shapes: Shapes) -> None:
    torch.manual_seed(0)
    plain = OpenCLIPVision(shapes.model).to(bench.device)
    images = torch.randn(shapes.images, 3, shapes.size, shapes.size, device=bench.device)
    fast = OpenCLIPVision(shapes.model, compile=bench.compile).to(bench.device)
    fast.load_state_dict(plain.state_dict())
    with torch.no_grad():
        exact = copy.deepcopy(plain).double()(images[:2].double())[0]
        check('image tower, float32', fast(images[:2])[0], exact, 1e-3)

    def step(tower):
        def run():
            tower.zero_grad()
            with autocast(bench.device):
                out = tower(images)[0]
            out.float().square().sum().backward()

        return run

    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        step(plain)()
    flops = counter.get_total_flops()
    bench.compare(f'image tower, {len(images)}', {'eager': step(plain), 'compiled': step(fast)}, flops)


def texts(bench: Bench, shapes: Shapes) -> None:
    torch.manual_seed(0)
    tower = OpenCLIPText(shapes.model).to(bench.device)
    fast = OpenCLIPText(shapes.model, compile=bench.compile).to(bench.device)
    fast.load_state_dict(tower.state_dict())
    names = (open_clip.IMAGENET_CLASSNAMES * 5)[: max(shapes.prompts)]
    prompts = tower.tokenize(class_prompts(names, 'clip')[0])
    with torch.no_grad():
        exact = copy.deepcopy(tower.clip).double().encode_text(prompts[:9].to(bench.device))
        check('text tower, float32', fast(prompts[:9]), exact, 1e-3)

    def step(encode, module):
        def run():
            module.zero_grad()
            with autocast(bench.device):
                out = encode()
            out.float().square().sum().backward()

        return run

    def compared(tokens):
        there = tokens.to(bench.device)
        variants = {'full length': step(lambda: tower.clip.encode_text(there), tower)}
        for name, plan in (('groups of 64, prefix', equal_groups), ('few groups', few_groups)):
            plan = plan(tower.clip, tokens).to(bench.device)
            variants[name] = step(lambda plan=plan: encode_text(tower.clip, there, plan), tower)
        plan = fast.plan(tokens)
        variants['default, compiled'] = step(lambda: fast(there, plan), fast)
        return variants

    for number in shapes.prompts:
        bench.compare(f'{number} class prompts', compared(prompts[:number]))
    words = WORDS.split()
    sentences = [' '.join(words[: 3 + i % (len(words) - 2)]) for i in range(min(256, max(shapes.prompts)))]
    bench.compare(f'{len(sentences)} sentences', compared(tower.tokenize(sentences)))


def naive_contrastive(image, text, labels, scale=20.0):
    targets = (labels[:, None] == labels[None, :]).to(image.dtype)
    targets = targets / targets.sum(1, keepdim=True)
    logits = scale * image @ text.t()
    return -(targets * (logits.log_softmax(1) + logits.t().log_softmax(1))).sum(1).mean() / 2


def naive_distillation(image, text, teacher_image, teacher_text, scale=20.0):
    logits, theirs = scale * image @ text.t(), scale * teacher_image @ teacher_text.t()
    both = (theirs.softmax(1) * logits.log_softmax(1)).sum(1) + (theirs.softmax(0) * logits.log_softmax(0)).sum(0)
    return -both.mean() / 2


def distill(image, text, teacher_image, teacher_text):
    return distillation_loss(image, text, teacher_image, teacher_text, 20.0, 20.0, 'full')


def losses(bench: Bench, shapes: Shapes) -> None:
    torch.manual_seed(0)

    def features(n, dtype=torch.float32):
        return [F.normalize(torch.randn(n, 512, device=bench.device, dtype=dtype), dim=-1) for _ in range(4)]

    exact = features(96, torch.float64)
    few = [x.float() for x in exact]
    labels = torch.arange(96, device=bench.device) % 40
    expected = naive_contrastive(exact[0], exact[1], labels)
    check('contrastive loss', contrastive_loss(few[0], few[1], labels, 20.0), expected, 1e-5)
    check('distillation loss', distill(*few), naive_distillation(*exact), 1e-5)

    def step(loss, inputs):
        def run():
            own = [x.detach().requires_grad_() for x in inputs]
            loss(*own).backward()

        return run

    for n in shapes.pairs:
        image, text, *teacher = features(n)
        labels = torch.randint(shapes.classes, (n,), device=bench.device)
        forms = {'plain': naive_contrastive, 'contrastive_loss': contrastive_loss}
        variants = {k: step(lambda i, t, f=f, y=labels: f(i, t, y, 20.0), (image, text)) for k, f in forms.items()}
        bench.compare(f'contrastive loss, N {n}', variants)
        forms = {'plain': naive_distillation, 'distillation_loss': distill}
        variants = {k: step(lambda i, t, f=f, h=teacher: f(i, t, *h), (image, text)) for k, f in forms.items()}
        bench.compare(f'distillation loss, N {n}', variants)


def lgr_head(bench: Bench, shapes: Shapes) -> None:
    torch.manual_seed(0)
    for batch, classes in shapes.lgr:
        branch = Branch(512).to(bench.device)
        image = torch.randn(batch, 512, device=bench.device)
        values = torch.randn(classes, shapes.anchors, 512, device=bench.device)
        counts = torch.full((classes,), shapes.anchors, device=bench.device)
        with torch.no_grad():
            exact = as_published(copy.deepcopy(branch).double(), image[:3].double(), values[:50].double())
            check('LGR head', ours(branch, image[:3], AnchorTable(values[:50], counts[:50])), exact, 1e-4)
        table = AnchorTable(values, counts)

        def step(form, anchors, branch=branch, image=image):
            def run():
                branch.zero_grad()
                form(branch, image, anchors).square().sum().backward()

            return run

        variants = {'Eq. 4-7 as they stand': step(as_published, values), 'LGRHead': step(ours, table)}
        bench.compare(f'LGR head, B {batch}, C {classes}', variants)


def trained(bench: Bench, model, batch: Callable[[], dict]) -> tuple[Callable[[], None], BaseModel]:
    """A whole training step with a fused AdamW, and its model."""
    model = MODELS.build(model).to(bench.device).train()
    batches = [batch() for _ in range(2)]
    wrapper: list = []

    def run():
        if not wrapper:
            optimizer = fused_optimizer(dict(type='AdamW', lr=1e-6))
            wrapper.append(build_optim_wrapper(model, dict(type='mmlt.BFloat16OptimWrapper', optimizer=optimizer)))
        batches.append(batches.pop(0))
        model.train_step({k: copy.copy(v) for k, v in batches[0].items()}, wrapper[0])

    return run, model


def cvlp(shapes: Shapes, compile) -> dict:
    tower = dict(model=shapes.model, compile=compile)
    return dict(
        type='mmlt.CVLP',
        backbone=dict(type='mmlt.OpenCLIPVision', **tower),
        text=dict(type='mmlt.OpenCLIPText', **tower),
        teacher=dict(pretrained=None, **tower),
        loss=dict(type='mmlt.CCLLoss', form='mean', label_smoothing=0.1),
        distill_loss=dict(type='mmlt.ImageTextDistillLoss', form='full'),
    )


def steps(bench: Bench, shapes: Shapes) -> None:
    torch.manual_seed(0)

    def batch(n):
        def make():
            images = torch.randint(0, 255, (n, 3, shapes.size, shapes.size), dtype=torch.uint8)
            images = images.pin_memory() if bench.device.type == 'cuda' else images
            samples = [DataSample().set_gt_label(torch.tensor([i % shapes.classes])) for i in range(n)]
            return dict(inputs=images, data_samples=samples)

        return make

    classes = [f'{name} {i}' for i, name in enumerate((open_clip.IMAGENET_CLASSNAMES * 9)[: shapes.classes])]
    sentences = [[f'a sentence about {c} that has a few more words in it', f'{c} again'] for c in classes]

    for n in shapes.cvlp:
        variants = {}
        for name, compile in (('eager', False), ('compiled', bench.compile)):
            variants[name], model = trained(bench, cvlp(shapes, compile), batch(n))
            model.set_class_info(ClassInfo(classes, texts=sentences))
            model.stand_in()
        bench.compare(f'step of CVLP, batch {n}', variants)
        del variants, model
    variants = {}
    for name, compile in (('eager', False), ('compiled', bench.compile)):
        tower = dict(model=shapes.model, compile=compile)
        head = dict(type='mmlt.TextClsHead', text=dict(type='mmlt.OpenCLIPText', **tower), classes=classes)
        model = dict(
            type='ImageClassifier',
            backbone=dict(type='mmlt.OpenCLIPVision', **tower),
            head=head,
            data_preprocessor=dict(type='mmlt.CLIPDataPreprocessor'),
        )
        variants[name], _ = trained(bench, model, batch(shapes.phase_a))
    bench.compare(f"step of BALLAD's phase A, batch {shapes.phase_a}, {shapes.classes} classes", variants)


def optimizers(bench: Bench, shapes: Shapes) -> None:
    clip = open_clip.create_model(shapes.model, load_weights=False).to(bench.device)
    for p in clip.parameters():
        p.grad = torch.randn_like(p)
    adamw = functools.partial(torch.optim.AdamW, lr=1e-6)
    made = {'foreach': adamw(clip.parameters(), foreach=True), 'fused': adamw(clip.parameters(), fused=True)}
    bench.compare('AdamW over both towers', {name: optimizer.step for name, optimizer in made.items()})


PARTS = dict(towers=towers, texts=texts, losses=losses, lgr=lgr_head, optimizers=optimizers, steps=steps)


def main(argv=None) -> Bench:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--quick', action='store_true', help='tiny shapes')
    parser.add_argument('--only', nargs='+', choices=list(PARTS), default=list(PARTS), help='some of the parts')
    parser.add_argument('--device', default='cuda' if torch.cuda.is_available() else 'cpu')
    args = parser.parse_args(argv)
    shapes = QUICK if args.quick else Shapes()
    bench = Bench(torch.device(args.device), shapes.rounds)
    if bench.device.type == 'cpu':
        torch.set_num_threads(1)
        bench.compile = dict(backend='aot_eager')  # to see that it runs; code for a CPU takes minutes to make
    torch.backends.cuda.matmul.allow_tf32 = True  # as precision='auto' has it
    matrix_products(bench, shapes)
    for name in args.only:
        started = time.perf_counter()
        PARTS[name](bench, shapes)
        print(f'{name}: {time.perf_counter() - started:.0f} s')
    bench.print(shapes)
    return bench

"""A training step asks a GPU for nothing: it is simulated on the CPU, and notes whenever somebody waits for it."""

import traceback

import pytest
import torch
from mmengine.model import BaseDataPreprocessor
from mmengine.optim import build_optim_wrapper
from mmpretrain.registry import MODELS
from mmpretrain.structures import DataSample
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

from mmlt.engine.deferred import DeferredScalars
from mmlt.models.anchors import Anchors
from mmlt.utils import to_device
from mmlt.utils.class_info import ClassInfo

# 'meta' stands for the GPU: it is not the CPU, and autograd asks no driver for its streams.
GPU = torch.device('meta')
WAITS = []
READING = {'_local_scalar_dense', 'nonzero', '_unique2', 'unique_dim', 'unique_consecutive', 'masked_select', 'equal'}


def note(what):
    own = [
        f for f in traceback.extract_stack() if any(p in f.filename for p in ('/mmlt/', '/mmengine/', '/mmpretrain/'))
    ]
    WAITS.append(f'{what} at {own[-1].filename}:{own[-1].lineno}' if own else what)


class OnGPU(Tensor):
    """Says that it is on the GPU; its values are those of a tensor on the CPU."""

    @staticmethod
    def __new__(cls, inner):
        return Tensor._make_wrapper_subclass(
            cls,
            inner.size(),
            strides=inner.stride(),
            storage_offset=inner.storage_offset(),
            dtype=inner.dtype,
            device=GPU,
        )

    def __init__(self, inner):
        self.inner = inner

    __torch_function__ = torch._C._disabled_torch_function_impl

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        return run(func, args, kwargs or {})


def _reader(name):
    def read(self, *args):
        note(name)
        return getattr(self.inner, name)(*args)

    return read


for _name in ('item', 'tolist', 'numpy', '__int__', '__float__', '__bool__', '__index__'):
    setattr(OnGPU, _name, _reader(_name))


def run(func, args, kwargs):
    name = func._schema.name.removeprefix('aten::')
    gpu = [x for x in tree_leaves((args, kwargs)) if isinstance(x, OnGPU)]
    target = None if kwargs.get('device') is None else torch.device(kwargs['device'])
    if name in READING and gpu:
        note(name)
    if name == '_to_copy' and target is not None:
        if gpu and target != GPU:
            note('a copy to the CPU')
        if not gpu and target == GPU and not kwargs.get('non_blocking'):
            note('a copy from the CPU that blocks')
    if name == 'copy_' and isinstance(args[0], OnGPU) != isinstance(args[1], OnGPU) and not (args[2:] and args[2]):
        note('a copy between CPU and GPU that blocks')
    if name in ('index', 'index_put', 'index_put_') and gpu:
        for index in (i for i in args[1] if isinstance(i, Tensor)):
            if not isinstance(index, OnGPU):
                note('an index on the CPU')
            elif index.dtype == torch.bool:
                note('an index of booleans')
    inner_args, inner_kwargs = tree_map_only(OnGPU, lambda x: x.inner, (args, kwargs))
    if target == GPU:
        inner_kwargs['device'] = torch.device('cpu')
    out = func(*inner_args, **inner_kwargs)
    if func._schema.is_mutable and 'out' not in kwargs:
        return None if out is None else args[0]
    if not gpu if target is None else target != GPU:
        return out
    with torch.inference_mode(False):  # views of parameters are no inference tensors
        return tree_map_only(Tensor, OnGPU, out)


class Simulation(TorchDispatchMode):
    """Makes new tensors on the GPU."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        return run(func, args, kwargs or {})


def to_gpu(model):
    for module in model.modules():
        for name, parameter in module._parameters.items():
            if parameter is not None:
                module._parameters[name] = nn.Parameter(OnGPU(parameter.data), parameter.requires_grad)
        for name, buffer in module._buffers.items():
            if buffer is not None:
                module._buffers[name] = OnGPU(buffer)
        if isinstance(module, BaseDataPreprocessor):
            module._device = GPU
    return model


@pytest.fixture(autouse=True)
def simulation(monkeypatch):
    WAITS.clear()
    autocast = torch.autocast
    monkeypatch.setattr(torch, 'autocast', lambda kind, *a, **k: autocast('cpu' if kind == 'meta' else kind, *a, **k))
    with Simulation():
        yield


def batch(classes=3, size=8):
    return dict(
        inputs=[torch.randint(0, 255, (3, 32, 32), dtype=torch.uint8) for _ in range(size)],
        data_samples=[DataSample().set_gt_label(torch.tensor([i % classes])) for i in range(size)],
    )


def waits(model, data=batch, steps=4, **optim_wrapper):
    """Who waited in the last steps of some; the first ones may prepare."""
    model = to_gpu(model).train()
    wrapper = dict(type='mmlt.BFloat16OptimWrapper', optimizer=dict(type='AdamW', lr=1e-4), clip_grad=dict(max_norm=1))
    wrapper = build_optim_wrapper(model, {**wrapper, **optim_wrapper})
    pending = DeferredScalars()
    for step in range(steps):
        if hasattr(model, 'set_progress'):
            model.set_progress(step, steps)
        if step == 2:
            WAITS.clear()
        out = model.train_step(data(), wrapper)
        pending.add(step, {k: v for k, v in out.items() if isinstance(v, Tensor)})
    assert all(v.device == GPU for v in out.values())
    found = list(WAITS)
    assert len(pending.read()) == steps  # which waits, once
    return found


CLASSES = ('a cat', 'an apple pie', 'it')
VIT = dict(type='mmlt.OpenCLIPVision', model='mmlt-tiny-vit')
TEXT = dict(type='mmlt.OpenCLIPText', model='mmlt-tiny-vit')
CLIP = dict(type='mmlt.CLIPDataPreprocessor')


def classifier(head, backbone=VIT, **parts):
    return dict(type='ImageClassifier', backbone=backbone, head=head, data_preprocessor=CLIP, **parts)


def test_the_simulation_notes_who_waits():
    x = OnGPU(torch.arange(4.0))
    y = (x * 2).sum() + torch.ones(2, device=GPU).sum()
    assert isinstance(y, OnGPU) and y.inner == 14 and not WAITS
    for read in (
        lambda: y.item(),
        lambda: int(y),
        lambda: bool(y > 0),
        lambda: x.cpu(),
        lambda: x[torch.tensor([0])],
        lambda: x[x > 1],
        lambda: x.unique(),
        lambda: torch.ones(2).to(GPU),
        lambda: x.nonzero(),
    ):
        before = len(WAITS)
        read()
        assert len(WAITS) > before
    WAITS.clear()
    to_device(torch.ones(2), GPU)
    assert not WAITS


def test_cvlp():
    model = MODELS.build(
        dict(type='mmlt.CVLP', backbone=VIT, text=TEXT, teacher=dict(model='mmlt-tiny-vit', pretrained=None))
    )
    model.set_class_info(
        ClassInfo(CLASSES, texts=[['one sentence', 'another one'], ['a longer sentence, of b'], ['c is c']])
    )
    model.stand_in()
    to_gpu(model.teacher)
    assert waits(model) == []


@pytest.mark.parametrize('prompt_mode', ['ensemble', 'random'])
def test_phase_a(prompt_mode):
    head = dict(
        type='mmlt.TextClsHead', text=TEXT, templates=['a {}.', 'one {}'], prompt_mode=prompt_mode, classes=CLASSES
    )
    assert waits(MODELS.build(classifier(head))) == []


def test_phase_b_on_cached_features():
    head = dict(type='mmlt.TextClsHead', text=dict(TEXT, frozen=True), classes=CLASSES)
    neck = dict(type='mmlt.BalancedLinearAdapter', in_channels=64, residual_ratio=0.2)
    model = MODELS.build(classifier(head, dict(VIT, frozen=True), neck=neck))

    def data():
        samples = [DataSample().set_gt_label(OnGPU(torch.tensor([i % 3]))) for i in range(8)]
        return dict(inputs=OnGPU(torch.randn(8, 64)), data_samples=samples)

    assert waits(model, data) == []


def test_lgr():
    model = MODELS.build(classifier(dict(type='mmlt.LGRHead', num_classes=3, in_channels=64)))
    model.head.take(Anchors.stand_in(3, 4, 64))
    assert waits(model) == []


@pytest.mark.parametrize(
    'loss', ['mmlt.LogitAdjustedLoss', 'mmlt.LDAMLoss', 'mmlt.ClassBalancedLoss', 'CrossEntropyLoss']
)
def test_lift(loss):
    head = dict(type='mmlt.CosineClsHead', num_classes=3, in_channels=64, init='random', loss=dict(type=loss))
    model = MODELS.build(classifier(head, dict(VIT, adapter=dict(type='mmlt.AdaptFormer', num_classes=3))))
    for module in model.modules():
        if hasattr(module, 'set_class_info'):
            module.set_class_info(ClassInfo(CLASSES, [5, 3, 2]))
    assert waits(model) == []


def test_cue():
    loss = dict(type='mmlt.CUELoss', neighbours={'it': ['a cat']}, top_k=1)
    head = dict(type='mmlt.CosineClsHead', num_classes=3, in_channels=64, init='random', loss=loss)
    backbone = dict(VIT, adapter=dict(type='mmlt.AdaptFormer', num_classes=3))
    parts = classifier(head, backbone, teacher=dict(model='mmlt-tiny-vit', pretrained=None))
    model = MODELS.build(dict(parts, type='mmlt.CUEClassifier'))
    for module in model.modules():
        if hasattr(module, 'set_class_info'):
            module.set_class_info(ClassInfo(CLASSES, [5, 3, 2]))
    model.train()  # reads the neighbours
    model.teacher.stand_in()
    to_gpu(model.teacher.vision)
    to_gpu(model.teacher.head)
    assert waits(model) == []


@pytest.mark.parametrize('discrepancy', ['l2', 'kl'])
def test_more(discrepancy):
    plain = classifier(dict(type='LinearClsHead', num_classes=3, in_channels=64))
    model = MODELS.build(dict(type='mmlt.MORE', classifier=plain, discrepancy=discrepancy))
    model.set_class_info(ClassInfo(CLASSES, [5, 3, 2]))
    assert waits(model) == []


@pytest.mark.parametrize('kind', ['Mixup', 'CutMix'])
def test_mixed_batches(kind):
    mixing = dict(CLIP, num_classes=3, batch_augments=dict(augments=[dict(type=kind, alpha=1.0)]))
    head = dict(type='LinearClsHead', num_classes=3, in_channels=64)
    assert waits(MODELS.build(dict(classifier(head), data_preprocessor=mixing))) == []

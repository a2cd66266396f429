"""CUE's classifier: a frozen zero-shot model looks at the same pictures."""

from types import SimpleNamespace

import numpy as np
import open_clip
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from mmengine.optim import build_optim_wrapper
from mmpretrain.registry import MODELS
from mmpretrain.structures import DataSample
from PIL import Image
from torch import nn

from mmlt import InputError
from mmlt.engine import FeatureCacheHook
from mmlt.models import CUEClassifier, LogitAdjustedLoss
from mmlt.models.open_clip_towers import open_clip_load_checkpoint
from mmlt.utils import leave_together
from mmlt.utils.class_info import ClassInfo

VIT = 'mmlt-tiny-vit'
CLASSES = ('apple', 'pear', 'plum', 'sweet pepper', 'fox')
COUNTS = (60, 25, 9, 4, 2)
NEIGHBOURS = {'apple': ['pear', 'plum'], 'pear': ['apple'], 'sweet pepper': ['apple', 'pear', 'plum']}
LABELS = (0, 2, 3, 4, 1, 0, 3)


def classifier(clip_file, cue=True, **teacher):
    loss = dict(type='mmlt.LogitAdjustedLoss')
    parts = dict(type='ImageClassifier')
    if cue:
        loss = dict(type='mmlt.CUELoss', neighbours=NEIGHBOURS, top_k=2)
        parts = dict(type='mmlt.CUEClassifier', teacher=dict(model=VIT, pretrained=clip_file, **teacher))
    model = MODELS.build(
        dict(
            **parts,
            backbone=dict(
                type='mmlt.OpenCLIPVision',
                model=VIT,
                pretrained=clip_file,
                projection=False,
                adapter=dict(type='mmlt.AdaptFormer', bottleneck=4),
            ),
            head=dict(
                type='mmlt.CosineClsHead',
                num_classes=5,
                in_channels=64,
                text=dict(type='mmlt.OpenCLIPText', model=VIT, pretrained=clip_file),
                loss=loss,
            ),
            data_preprocessor=dict(type='mmlt.CLIPDataPreprocessor'),
        )
    )
    for module in model.modules():
        if hasattr(module, 'set_class_info'):
            module.set_class_info(ClassInfo(CLASSES, COUNTS))
    model.init_weights()
    return model.train()


def batch(size=32):
    images = torch.randint(0, 256, (len(LABELS), 3, size, size), generator=torch.Generator().manual_seed(1))
    samples = [DataSample().set_gt_label(label) for label in LABELS]
    return dict(inputs=images.to(torch.uint8), data_samples=samples)


@torch.no_grad()
def naive_scores(clip_file, images, template='a photo of a {}.', image_size=None):
    """Cosines by open_clip itself, times 100."""
    clip = open_clip.create_model(VIT, force_image_size=image_size).eval()
    open_clip_load_checkpoint(clip, clip_file)
    texts = clip.encode_text(open_clip.get_tokenizer(VIT)([template.format(c) for c in CLASSES]), normalize=True)
    return 100 * clip.encode_image(images, normalize=True) @ texts.t()


def test_scores_are_those_of_open_clip(clip_file):
    model = classifier(clip_file)
    images = model.data_preprocessor(batch(), True)['inputs']
    scores = model.teacher(images)
    assert torch.allclose(scores, naive_scores(clip_file, images), atol=1e-4) and not scores.requires_grad
    assert len({tuple(row) for row in scores.argsort(1).tolist()}) > 1
    other = classifier(clip_file, templates='the fruit {}').teacher(images)
    assert torch.allclose(other, naive_scores(clip_file, images, 'the fruit {}'), atol=1e-4)


def test_loss_of_the_classifier_is_the_loss_of_its_parts(clip_file):
    model = classifier(clip_file)
    data = model.data_preprocessor(batch(), True)
    logits = model(data['inputs'])
    actual = model(**data, mode='loss')
    assert set(actual) == {'loss'}
    expected = model.head.loss_module(logits, torch.tensor(LABELS), zero_shot=naive_scores(clip_file, data['inputs']))
    assert torch.allclose(actual['loss'], expected, atol=1e-6)
    plain = LogitAdjustedLoss(class_counts=COUNTS)(logits, torch.tensor(LABELS))
    assert expected > plain


def test_own_normalisation_and_size(clip_file):
    mean, std = (100.0, 110.0, 120.0), (50.0, 60.0, 70.0)
    model = classifier(clip_file, mean=mean, std=std)
    data = batch()
    inputs = model.data_preprocessor(data, True)['inputs']
    pixels = data['inputs'].flip(1).double()  # RGB
    theirs = (pixels - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)
    seen = inputs * model._factor + model._shift
    assert (seen - theirs).abs().max() <= 1e-5
    calls = []
    model.teacher.register_forward_pre_hook(lambda _, args: calls.append(args[0]))
    model(**model.data_preprocessor(batch(), True), mode='loss')
    assert torch.equal(calls[0], seen)


def bicubic(images, size):
    """As Pillow resizes, one channel after the other, without rounding to bytes."""
    return torch.stack(
        [
            torch.stack(
                [torch.from_numpy(np.array(Image.fromarray(c).resize((size, size), Image.BICUBIC))) for c in image]
            )
            for image in images.numpy()
        ]
    )


@pytest.mark.parametrize('size, own', [(80, None), (24, None), (32, 48)])
def test_pictures_of_another_size_are_resized_to_the_zero_shot_models(clip_file, size, own):
    model = classifier(clip_file, **({} if own is None else dict(image_size=own)))
    images = model.data_preprocessor(batch(size), True)['inputs']
    wanted = own or 32
    seen = []
    model.teacher.vision.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    scores = model.teacher(images)
    assert (seen[0] - bicubic(images, wanted)).abs().max() <= 1e-4 * images.abs().max()
    assert torch.allclose(scores, naive_scores(clip_file, bicubic(images, wanted), image_size=own), atol=2e-3)


def test_zero_shot_model_shares_no_weights_with_what_is_trained(clip_file):
    """Nor after other weights were read does it score by texts of the earlier ones."""
    model = classifier(clip_file)
    own = {p.data_ptr() for p in model.parameters()}
    theirs = [*model.teacher.vision.parameters(), *model.teacher.head.parameters()]
    assert len(theirs) > 20 and not own & {p.data_ptr() for p in theirs} and not any(p.requires_grad for p in theirs)
    images = model.data_preprocessor(batch(), True)['inputs']
    before = model.teacher(images)
    model.teacher.head.text_features = torch.zeros_like(model.teacher.head.text_features)
    model.teacher.init_weights()
    assert torch.equal(model.teacher(images), before) and before.any()


def test_checkpoint_and_optimizer_are_those_without_it(clip_file):
    model, plain = classifier(clip_file), classifier(clip_file, cue=False)
    assert {k: v.shape for k, v in model.state_dict().items()} == {k: v.shape for k, v in plain.state_dict().items()}
    names = [n for n, _ in model.named_parameters()]
    assert names == [n for n, _ in plain.named_parameters()]
    assert not list(model.teacher.parameters()) and not list(model.teacher.buffers())
    plain.load_state_dict(model.state_dict())
    images = model.data_preprocessor(batch(), False)['inputs']
    assert torch.equal(model.eval()(images), plain.eval()(images))


def test_a_training_leaves_the_zero_shot_model_as_it_is(clip_file):
    model = classifier(clip_file)
    wrapper = build_optim_wrapper(model, dict(optimizer=dict(type='SGD', lr=0.005)))
    images = model.data_preprocessor(batch(), True)['inputs']
    before, weights = model.teacher(images), [p.clone() for p in model.teacher.vision.parameters()]
    trained = {n: p.detach().clone() for n, p in model.named_parameters() if p.requires_grad}
    losses = [model.train_step(batch(), wrapper)['loss'].item() for _ in range(8)]
    assert losses[-1] < losses[0]
    assert torch.equal(model.teacher(images), before)
    assert all(torch.equal(a, b) for a, b in zip(weights, model.teacher.vision.parameters()))
    assert not model.teacher.vision.training and not model.teacher.head.training
    assert any(not torch.equal(p, trained[n]) for n, p in model.named_parameters() if n in trained)


def test_resumed_training_goes_on_the_same(clip_file):
    def run(model, wrapper, steps):
        return [model.train_step(batch(), wrapper)['loss'].item() for _ in range(steps)]

    def build():
        model = classifier(clip_file)
        return model, build_optim_wrapper(model, dict(optimizer=dict(type='SGD', lr=0.1, momentum=0.9)))

    torch.manual_seed(7)
    model, wrapper = build()
    run(model, wrapper, 2)
    kept = {k: v.clone() for k, v in model.state_dict().items()}
    state = wrapper.state_dict()
    state = {**state, 'state': {k: {n: t.clone() for n, t in v.items()} for k, v in state['state'].items()}}
    expected = run(model, wrapper, 3)
    torch.manual_seed(8)
    model, wrapper = build()
    model.load_state_dict(kept)
    wrapper.load_state_dict(state)
    assert run(model, wrapper, 3) == expected


def test_autocast_and_a_compiled_head(clip_file):
    model = classifier(clip_file)
    data = model.data_preprocessor(batch(), True)
    expected = model(**data, mode='loss')['loss']
    with torch.autocast('cpu', torch.bfloat16):
        half = model(**data, mode='loss')['loss']
    assert half.dtype == torch.float32 and (half - expected).abs() <= 0.05 * expected
    model.head.compile(backend='aot_eager')
    assert torch.allclose(model(**data, mode='loss')['loss'], expected)


def test_heads_of_mmpretrain_and_mixed_labels(clip_file):
    model = MODELS.build(
        dict(
            type='mmlt.CUEClassifier',
            teacher=dict(model=VIT, pretrained=clip_file),
            backbone=dict(type='mmlt.CIFARResNet', depth=32),
            neck=dict(type='GlobalAveragePooling'),
            head=dict(
                type='LinearClsHead',
                num_classes=5,
                in_channels=64,
                loss=dict(type='mmlt.CUELoss', neighbours=NEIGHBOURS, top_k=2),
            ),
            data_preprocessor=dict(
                type='mmlt.CLIPDataPreprocessor',
                num_classes=5,
                to_onehot=True,
                batch_augments=dict(augments=dict(type='Mixup', alpha=0.8)),
            ),
        )
    )
    for module in model.modules():
        if hasattr(module, 'set_class_info'):
            module.set_class_info(ClassInfo(CLASSES, COUNTS))
    model.init_weights()
    data = model.data_preprocessor(batch(), True)
    assert 'gt_score' in data['data_samples'][0]
    loss = model(**data, mode='loss')['loss']
    loss.backward()
    assert torch.isfinite(loss) and model.head.fc.weight.grad.abs().max() > 0


def test_what_a_classifier_refuses(clip_file):
    model = classifier(clip_file)
    with pytest.raises(InputError, match='but cached features would come: set default_hooks.feature_cache=None'):
        FeatureCacheHook(views=1).check_run(SimpleNamespace(model=model))
    parts = dict(backbone=dict(type='mmlt.CIFARResNet', depth=32), neck=dict(type='GlobalAveragePooling'))
    linear = dict(type='LinearClsHead', num_classes=5, in_channels=64)
    with pytest.raises(InputError, match='its head has no CUELoss that would use it'):
        CUEClassifier(dict(model=VIT), head=linear, **parts)
    head = {**linear, 'loss': dict(type='mmlt.CUELoss', neighbours={})}
    with pytest.raises(InputError, match='a mean or a std alone: give both, or neither'):
        CUEClassifier(dict(model=VIT, mean=(0, 0, 0)), head=head, **parts)
    with pytest.raises(InputError, match='the data_preprocessor has none: give it mean and std'):
        CUEClassifier(dict(model=VIT, mean=(0, 0, 0), std=(1, 1, 1)), head=head, **parts)
    # Without a teacher it is an ImageClassifier.
    head = {**linear, 'loss': dict(type='mmlt.CUELoss', neighbours={}, zero_shot_weight=0, class_counts=COUNTS)}
    head['loss']['base'] = dict(type='CrossEntropyLoss')
    model = CUEClassifier(head=head, **parts)
    model.head.loss_module.set_class_info(ClassInfo(CLASSES))
    losses = model.loss(torch.randn(7, 3, 32, 32), batch()['data_samples'])
    assert torch.isfinite(losses['loss'])


# Several processes


def _process(rank, folder, clip_file):
    dist.init_process_group('gloo', init_method=f'file://{folder}/store', rank=rank, world_size=2)
    torch.manual_seed(0)
    model = classifier(clip_file)
    data, rows = model.data_preprocessor(_even_batch(), True), slice(4 * rank, 4 * rank + 4)
    parallel = nn.parallel.DistributedDataParallel(model)
    loss = parallel(data['inputs'][rows], data['data_samples'][rows], mode='loss')['loss']
    loss.backward()
    gradients = {n: p.grad for n, p in model.named_parameters() if p.requires_grad}
    torch.save(dict(loss=loss.detach(), gradients=gradients), f'{folder}/{rank}.pt')
    del parallel  # it holds the group
    leave_together()


def _even_batch():
    data = batch()
    return dict(
        inputs=torch.cat([data['inputs'], data['inputs'][:1].flip(-1)]),
        data_samples=[*data['data_samples'], DataSample().set_gt_label(4)],
    )


def test_two_processes_give_loss_and_gradients_of_one(clip_file, tmp_path, monkeypatch):
    monkeypatch.setenv('OMP_NUM_THREADS', '1')
    mp.spawn(_process, (str(tmp_path), clip_file), nprocs=2)
    torch.manual_seed(0)
    model = classifier(clip_file)
    expected = model(**model.data_preprocessor(_even_batch(), True), mode='loss')['loss']
    expected.backward()
    results = [torch.load(tmp_path / f'{rank}.pt') for rank in range(2)]
    assert torch.allclose(torch.stack([r['loss'] for r in results]).mean(), expected, atol=1e-6)
    assert results[0]['loss'] != results[1]['loss']
    for name, p in model.named_parameters():
        if p.requires_grad:
            for result in results:
                assert (result['gradients'][name] - p.grad).abs().max() <= 1e-6 * p.grad.abs().max().clamp(min=1), name

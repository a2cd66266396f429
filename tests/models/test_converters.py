"""Checkpoints in the published layouts, converted, against the published formulas written out in float64."""

import argparse
import json
import re
import shlex
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
import torch.nn.functional as F
from mmengine.config import Config
from mmpretrain.registry import MODELS
from safetensors.torch import load_file

from mmlt import InputError
from mmlt.apis import get_model
from mmlt.checkpoints import read_checkpoint
from mmlt.checkpoints.arrays import read_array
from mmlt.checkpoints.converters import (
    anchor_counts,
    checkpoint_kind,
    from_ballad,
    from_vlltr_recognition,
    rename,
)
from mmlt.checkpoints.open_clip_files import to_open_clip
from mmlt.cli import import_ballad, import_vlltr
from mmlt.cli import to_open_clip as to_open_clip_verb
from mmlt.cli.work.import_vlltr import training_command
from mmlt.engine.importing import write_imported
from mmlt.models.anchors import Anchors
from mmlt.utils.class_info import ClassInfo
from tests import stubs

REPO = Path(__file__).parent.parent.parent
CLASSES = ['cat', 'dog', 'red fox']
COUNTS = [3, 1, 2]  # anchor sentences of every class
EMBED = {'vit': 64, 'rn': 128}
TOWER_TOLERANCE = 1e-5


# Random weights under OpenAI's names, and its CLIP written out


def add(state, name, *shape, scale=None):
    state[name] = torch.randn(*shape) * (scale if scale is not None else shape[-1] ** -0.5)


def add_norm(state, name, width):
    state[f'{name}.weight'], state[f'{name}.bias'] = 1 + 0.1 * torch.randn(width), 0.1 * torch.randn(width)


def add_linear(state, name, out, width, bias=True):
    add(state, f'{name}.weight', out, width)
    if bias:
        add(state, f'{name}.bias', out, scale=0.1)


def add_blocks(state, prefix, layers, width):
    for i in range(layers):
        block = f'{prefix}transformer.resblocks.{i}.'
        add(state, f'{block}attn.in_proj_weight', 3 * width, width)
        add(state, f'{block}attn.in_proj_bias', 3 * width, scale=0.1)
        add_linear(state, f'{block}attn.out_proj', width, width)
        for norm in ('ln_1', 'ln_2'):
            add_norm(state, block + norm, width)
        add_linear(state, f'{block}mlp.c_fc', 4 * width, width)
        add_linear(state, f'{block}mlp.c_proj', width, 4 * width)


def vit_weights(prefix=''):
    state = {}
    add(state, f'{prefix}class_embedding', 64)
    add(state, f'{prefix}positional_embedding', 17, 64)
    add(state, f'{prefix}proj', 64, 64)
    add(state, f'{prefix}conv1.weight', 64, 3, 8, 8)
    add_norm(state, f'{prefix}ln_pre', 64)
    add_blocks(state, prefix, 2, 64)
    add_norm(state, f'{prefix}ln_post', 64)
    return state


def add_batch_norm(state, name, width):
    add_norm(state, name, width)
    state[f'{name}.running_mean'] = 0.1 * torch.randn(width)
    state[f'{name}.running_var'] = 0.5 + torch.rand(width)
    state[f'{name}.num_batches_tracked'] = torch.tensor(7)


def resnet_weights(prefix=''):
    """ModifiedResNet, width 16, one block a stage."""
    state, width = {}, 16
    for i, (inner, outer) in enumerate([(3, 8), (8, 8), (8, 16)], 1):
        add(state, f'{prefix}conv{i}.weight', outer, inner, 3, 3, scale=0.2)
        add_batch_norm(state, f'{prefix}bn{i}', outer)
    inner = width
    for stage in range(1, 5):
        planes, block = width * 2 ** (stage - 1), f'{prefix}layer{stage}.0.'
        for i, shape in enumerate([(planes, inner, 1, 1), (planes, planes, 3, 3), (4 * planes, planes, 1, 1)], 1):
            add(state, f'{block}conv{i}.weight', *shape, scale=(shape[1] * shape[2] ** 2) ** -0.5)
            add_batch_norm(state, f'{block}bn{i}', shape[0])
        add(state, f'{block}downsample.0.weight', 4 * planes, inner, 1, 1, scale=inner**-0.5)
        add_batch_norm(state, f'{block}downsample.1', 4 * planes)
        inner = 4 * planes
    add(state, f'{prefix}attnpool.positional_embedding', 2, inner)
    for name, out in (('k_proj', inner), ('q_proj', inner), ('v_proj', inner), ('c_proj', 128)):
        add_linear(state, f'{prefix}attnpool.{name}', out, inner)
    return state


def text_weights(embed):
    state = {}
    add(state, 'positional_embedding', 16, 64, scale=0.5)
    add(state, 'text_projection', 64, embed)
    add(state, 'token_embedding.weight', 49408, 64, scale=0.5)
    add_norm(state, 'ln_final', 64)
    add_blocks(state, '', 2 if embed == 64 else 1, 64)
    return state


def image_weights(kind, prefix=''):
    return vit_weights(prefix) if kind == 'vit' else resnet_weights(prefix)


def norm(w, name, x):
    return F.layer_norm(x, x.shape[-1:], w[f'{name}.weight'], w[f'{name}.bias'])


def linear(w, name, x):
    return x @ w[f'{name}.weight'].t() + w.get(f'{name}.bias', 0)


def attend(q, k, v, heads, mask=None):
    """Attention of sequences (N, L, W)."""
    q, k, v = (t.unflatten(-1, (heads, -1)).transpose(1, 2) for t in (q, k, v))
    scores = q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5
    if mask is not None:
        scores = scores + mask
    return (scores.softmax(-1) @ v).transpose(1, 2).flatten(2)


def run_blocks(w, x, mask=None, heads=2):
    for i in range(sum(k.endswith('ln_1.weight') for k in w)):
        block = f'transformer.resblocks.{i}.'
        y = norm(w, f'{block}ln_1', x) @ w[f'{block}attn.in_proj_weight'].t() + w[f'{block}attn.in_proj_bias']
        x = x + linear(w, f'{block}attn.out_proj', attend(*y.chunk(3, -1), heads, mask))
        y = linear(w, f'{block}mlp.c_fc', norm(w, f'{block}ln_2', x))
        x = x + linear(w, f'{block}mlp.c_proj', y * torch.sigmoid(1.702 * y))  # QuickGELU
    return x


def vit(w, images):
    x = F.conv2d(images, w['conv1.weight'], stride=8).flatten(2).transpose(1, 2)
    x = torch.cat([w['class_embedding'].expand(len(x), 1, -1), x], 1) + w['positional_embedding']
    x = run_blocks(w, norm(w, 'ln_pre', x))
    return norm(w, 'ln_post', x[:, 0]) @ w['proj']


def batch_norm(w, name, x):
    scale = w[f'{name}.weight'] / (w[f'{name}.running_var'] + 1e-5).sqrt()
    return (x - w[f'{name}.running_mean'][:, None, None]) * scale[:, None, None] + w[f'{name}.bias'][:, None, None]


def resnet(w, x):
    for i, stride in ((1, 2), (2, 1), (3, 1)):
        x = batch_norm(w, f'bn{i}', F.conv2d(x, w[f'conv{i}.weight'], stride=stride, padding=1)).relu()
    x = F.avg_pool2d(x, 2)
    for stage in range(1, 5):
        block, shrink = f'layer{stage}.0.', (lambda t: t) if stage == 1 else (lambda t: F.avg_pool2d(t, 2))
        y = batch_norm(w, f'{block}bn1', F.conv2d(x, w[f'{block}conv1.weight'])).relu()
        y = batch_norm(w, f'{block}bn2', F.conv2d(y, w[f'{block}conv2.weight'], padding=1)).relu()
        y = batch_norm(w, f'{block}bn3', F.conv2d(shrink(y), w[f'{block}conv3.weight']))
        x = (y + batch_norm(w, f'{block}downsample.1', F.conv2d(shrink(x), w[f'{block}downsample.0.weight']))).relu()
    x = x.flatten(2).transpose(1, 2)
    x = torch.cat([x.mean(1, keepdim=True), x], 1) + w['attnpool.positional_embedding']
    q, k, v = (linear(w, f'attnpool.{n}_proj', x) for n in 'qkv')
    return linear(w, 'attnpool.c_proj', attend(q[:, :1], k, v, heads=16))[:, 0]


def encode_texts(w, texts):
    tokens = open_clip.get_tokenizer('mmlt-tiny-vit')(texts)
    x = w['token_embedding.weight'][tokens] + w['positional_embedding']
    mask = torch.full((16, 16), -torch.inf, dtype=x.dtype).triu(1)
    x = norm(w, 'ln_final', run_blocks(w, x, mask))
    return x[range(len(x)), tokens.argmax(-1)] @ w['text_projection']


def double(state, prefix=''):
    return {k[len(prefix) :]: v.double() for k, v in state.items() if k.startswith(prefix) and v.is_floating_point()}


def unit(x):
    return x / x.pow(2).sum(-1, keepdim=True).sqrt()


def encode_images(kind, w, images):
    return (vit if kind == 'vit' else resnet)(w, images)


# Published files


def data_parallel(state):
    return {f'module.{k}': v for k, v in state.items()}


def ballad_checkpoint(path, kind, adapter=True, key='state_dict_best'):
    embed = EMBED[kind]
    parts = dict(visual_model=image_weights(kind), text_model=text_weights(embed))
    saved = {name: data_parallel(part) for name, part in parts.items()}
    if adapter:
        parts['classifier'] = dict(weight=torch.randn(embed, embed) * embed**-0.5)
        saved['classifier'] = data_parallel(parts['classifier'])
    torch.save(
        {'epoch': 9, 'best_epoch': 7, 'best_acc': np.float64(0.67), 'centroids': None, key: saved},
        path,
    )
    return parts


def namespace():
    return argparse.Namespace(model='RN50', lr=1e-3, output_dir='out')


def pretraining_checkpoint(path, kind):
    model = {**image_weights(kind, 'visual.'), **text_weights(EMBED[kind]), 'logit_scale': torch.tensor(3.1)}
    torch.save(dict(model=model, optimizer={}, lr_scheduler={}, epoch=49, scaler={}, args=namespace()), path)
    return model


def recognition_checkpoint(path, kind, counts=COUNTS, number=4):
    embed, classes = EMBED[kind], len(counts)
    model = {**image_weights(kind, 'visual.'), 'logit_scale': torch.tensor(2.3)}
    model['text_embeddings'] = 2 * torch.randn(classes, number, embed)
    for c, n in enumerate(counts):
        model['text_embeddings'][c, n:] = 0
    for name in ('norm1q', 'norm1k'):
        add_norm(model, f'text_block.attn.{name}', embed)
    for name in ('wq', 'wk'):
        add_linear(model, f'text_block.attn.{name}', embed, embed, bias=False)
    add_linear(model, 'text_block.visual_fc.0', 4 * embed, embed)
    add_linear(model, 'text_block.visual_fc.2', classes, 4 * embed)
    torch.save(dict(model=model, args=namespace()), path)
    return model


def published_lgr(w, image, counts, share):
    """VL-LTR's stage 2 by its formula: keys and G are made, padded sentences masked."""
    values = w['text_embeddings']
    query = linear(w, 'text_block.attn.wq', norm(w, 'text_block.attn.norm1q', image))
    keys = linear(w, 'text_block.attn.wk', norm(w, 'text_block.attn.norm1k', values))
    scores = torch.einsum('bd,cmd->bcm', query, keys) / image.shape[-1] ** 0.5
    padded = torch.arange(values.shape[1]) >= torch.tensor(counts)[:, None]
    weights = scores.masked_fill(padded, -torch.inf).softmax(-1)
    gathered = torch.einsum('bcm,cmd->bcd', weights, values)
    text = w['logit_scale'].exp() * (unit(image)[:, None] * unit(gathered)).sum(-1)
    hidden = linear(w, 'text_block.visual_fc.0', image).relu()
    visual = linear(w, 'text_block.visual_fc.2', hidden)
    return share * visual.softmax(-1) + (1 - share) * text.softmax(-1)


# Our configs for them

CONFIG = """
stages = dict(cvlp=dict(config='cvlp.py', load_from=True))
pipeline = [dict(type='Resize', scale=(32, 32)), dict(type='PackInputs')]
test_dataloader = dict(batch_size=2, dataset=dict(
    type='mmlt.LongTailedDataset', ann_file='none.txt', classes=['cat', 'dog', 'red fox'], pipeline=pipeline))
"""


def write_config(tmp_path, model, name='config.py'):
    (tmp_path / name).write_text(f'{CONFIG}\nmodel = {model!r}\n')
    return str(tmp_path / name)


def open_clip_name(kind):
    return f'mmlt-tiny-{kind}'


def ballad_model(kind, adapter=True, **neck):
    tower = dict(model=open_clip_name(kind), quick_gelu=True, frozen=True)
    model = dict(
        type='ImageClassifier',
        backbone=dict(type='mmlt.OpenCLIPVision', **tower),
        head=dict(type='mmlt.TextClsHead', text=dict(type='mmlt.OpenCLIPText', **tower)),
        data_preprocessor=dict(type='mmlt.CLIPDataPreprocessor'),
    )
    if adapter:
        model['neck'] = dict(type='mmlt.BalancedLinearAdapter', in_channels=EMBED[kind], **neck)
    return model


def lgr_model(kind, **head):
    return dict(
        type='ImageClassifier',
        backbone=dict(type='mmlt.OpenCLIPVision', model=open_clip_name(kind), quick_gelu=True),
        head=dict(type='mmlt.LGRHead', num_classes=3, in_channels=EMBED[kind], anchors='{stage:cvlp}/a', **head),
        data_preprocessor=dict(type='mmlt.CLIPDataPreprocessor'),
    )


def cvlp_model(kind):
    tower = dict(model=open_clip_name(kind), pretrained='openai')
    return dict(
        type='mmlt.CVLP',
        backbone=dict(type='mmlt.OpenCLIPVision', **tower),
        text=dict(type='mmlt.OpenCLIPText', **tower),
        teacher=tower,
        loss_ratio=0.5,
    )


def pictures():
    return torch.randn(4, 3, 32, 32)


@torch.no_grad()
def logits_of(config, checkpoint, images, options=None):
    model = get_model(config, checkpoint, cfg_options=options)
    return model(images, mode='tensor').double(), model


# BALLAD


@pytest.mark.parametrize('kind', ['vit', 'rn'])
@pytest.mark.parametrize('adapter', [True, False])
def test_ballad(tmp_path, capsys, kind, adapter):
    parts = ballad_checkpoint(tmp_path / 'published.pth', kind, adapter)
    config = write_config(tmp_path, ballad_model(kind, adapter))
    out = str(tmp_path / 'ours' / 'ballad.pth')
    import_ballad.main([str(tmp_path / 'published.pth'), config, '--out', out])
    printed = capsys.readouterr().out
    tensors = len(parts['visual_model'])
    assert re.search(rf'visual_model\. +->  backbone\.visual\.  \({tensors}\)', printed)

    images = pictures()
    options = {'model.neck.relu': False, 'model.neck.bias': False} if adapter else None
    assert ('model.neck.relu=False model.neck.bias=False' in printed) == adapter
    actual, model = logits_of(config, out, images, options)
    feature = encode_images(kind, double(parts['visual_model']), images.double())
    if adapter:
        feature = 0.2 * feature @ parts['classifier']['weight'].double().t() + 0.8 * feature
    texts = encode_texts(double(parts['text_model']), [f'a photo of a {c}.' for c in CLASSES])
    expected = 100 * unit(feature) @ unit(texts).t()
    assert expected.std() > 1
    assert (actual - expected).abs().max() <= TOWER_TOLERANCE * expected.abs().max()
    assert model._dataset_meta['classes'] == CLASSES


def test_latest_model_of_ballad(tmp_path):
    parts = ballad_checkpoint(tmp_path / 'latest.pth', 'vit', key='state_dict')
    renamed = from_ballad(read_checkpoint(str(tmp_path / 'latest.pth')), 'latest.pth')
    assert torch.equal(renamed.state['neck.linear.weight'], parts['classifier']['weight'])
    assert renamed.moved['classifier.weight'] == ('neck.linear.weight', 1)


def test_ballad_of_the_other_phase(tmp_path):
    ballad_checkpoint(tmp_path / 'a.pth', 'vit', adapter=False)
    ballad_checkpoint(tmp_path / 'b.pth', 'vit')
    phase_a = write_config(tmp_path, ballad_model('vit', False), 'phase_a.py')
    phase_b = write_config(tmp_path, ballad_model('vit'), 'phase_b.py')
    out = tmp_path / 'out.pth'
    with pytest.raises(SystemExit, match="lacks . weights of this config's model, the first is 'neck.linear.weight'"):
        import_ballad.main([str(tmp_path / 'a.pth'), phase_b, '--out', str(out)])
    with pytest.raises(SystemExit, match="1 weights more than this config's model, the first is 'neck.linear.weight'"):
        import_ballad.main([str(tmp_path / 'b.pth'), phase_a, '--out', str(out)])
    assert not out.exists()


def test_ballad_of_another_backbone(tmp_path):
    ballad_checkpoint(tmp_path / 'a.pth', 'vit')
    config = write_config(tmp_path, ballad_model('rn'))
    with pytest.raises(SystemExit, match='of shape|of this config|than this config'):
        import_ballad.main([str(tmp_path / 'a.pth'), config, '--out', str(tmp_path / 'out.pth')])


def test_ballad_with_a_class_list_of_another_length(tmp_path):
    ballad_checkpoint(tmp_path / 'a.pth', 'vit')
    (tmp_path / 'classes.txt').write_text('cat\ndog\n')
    arguments = [str(tmp_path / 'a.pth'), write_config(tmp_path, ballad_model('vit')), '--out', str(tmp_path / 'o.pth')]
    with pytest.raises(SystemExit, match=r"classes.txt' has 2 names, but the config's test set has 3 classes"):
        import_ballad.main([*arguments, '--classes', str(tmp_path / 'classes.txt')])
    assert not (tmp_path / 'o.pth').exists()


# What cannot be read or written


@pytest.mark.parametrize(
    ('name', 'content', 'sentence'),
    [
        ('a.txt', 'x', r"a.txt' could not be read \(OSError"),
        ('a.py', 'model = dict(', r"a.py' could not be read \(SyntaxError"),
        ('a.py', 'model = foo', r"a.py' could not be read \(NameError"),
        ('a.py', "_base_ = ['none.py']", r"a.py' could not be read \(FileNotFoundError"),
        ('a.py', 'a = 1', "a.py' has no model"),
        ('a.py', "model = dict(type='Nope')", "config's model cannot be built: .*there is no model 'Nope'"),
    ],
)
def test_config_that_is_none(tmp_path, name, content, sentence):
    ballad_checkpoint(tmp_path / 'b.pth', 'vit')
    (tmp_path / name).write_text(content)
    with pytest.raises(SystemExit, match=sentence):
        import_ballad.main([str(tmp_path / 'b.pth'), str(tmp_path / name), '--out', str(tmp_path / 'o.pth')])


def test_out_is_looked_at_first(tmp_path):
    (tmp_path / 'file').touch()
    for name in ('import_ballad', 'import_vlltr'):
        with pytest.raises(SystemExit, match=f"--out '{tmp_path}' is a folder: give the name of a file"):
            stubs.tool(f'model_converters/{name}').main(['no.pth', 'no.py', '--out', str(tmp_path)])
        with pytest.raises(SystemExit, match="'.*file' is no folder that you may write in"):
            stubs.tool(f'model_converters/{name}').main(['no.pth', 'no.py', '--out', str(tmp_path / 'file/o.pth')])
    with pytest.raises(SystemExit, match='is a folder'):
        to_open_clip_verb.main(['no.pth', str(tmp_path)])
    assert [p.name for p in tmp_path.iterdir()] == ['file']


def test_nothing_half_written_is_left(tmp_path, monkeypatch):
    def fail(content, path):
        Path(path).write_bytes(b'half')
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr(torch, 'save', fail)
    with pytest.raises(InputError, match='No space'):
        write_imported(str(tmp_path / 'o.pth'), Config(dict(a=1)), torch.nn.Linear(1, 1), None, 'x')
    assert not list(tmp_path.iterdir())


# VL-LTR, stage 1


@pytest.mark.parametrize('kind', ['vit', 'rn'])
def test_vlltr_pretraining(tmp_path, kind):
    published = pretraining_checkpoint(tmp_path / 'checkpoint.pth', kind)
    counts, number = [5, 2, 4], 3
    rng = np.random.default_rng(0)
    embeddings, scores = rng.normal(size=(11, EMBED[kind])).astype(np.float32), rng.random(11).astype(np.float16)
    np.save(tmp_path / 'txt_embed.npy', embeddings)
    np.save(tmp_path / 'txt_ce.npy', scores)
    (tmp_path / 'counts.txt').write_text('5\n2\n4\n')
    config = write_config(tmp_path, cvlp_model(kind))
    arguments = dict(embeddings='txt_embed.npy', scores='txt_ce.npy', counts='counts.txt')
    arguments = [word for k, v in arguments.items() for word in (f'--{k}', str(tmp_path / v))]
    out = tmp_path / 'cvlp' / 'epoch_50.pth'
    import_vlltr.main(
        [str(tmp_path / 'checkpoint.pth'), config, '--out', str(out), '--num-anchors', str(number), *arguments]
    )

    model = MODELS.build({**cvlp_model(kind), 'teacher': None, 'loss_ratio': 1.0, **quick(kind)}).eval()
    model.load_state_dict(read_checkpoint(out)['state_dict'], strict=False)
    images = pictures()
    with torch.no_grad():
        image = model.backbone(images)[-1].double()
        text = model.text(model.text.tokenize(['a red fox', 'two cats'])).double()
    expected = encode_images(kind, double(published, 'visual.'), images.double())
    assert (image - expected).abs().max() <= TOWER_TOLERANCE * expected.abs().max()
    expected = encode_texts(
        double({k: v for k, v in published.items() if not k.startswith('visual.')}), ['a red fox', 'two cats']
    )
    assert (text - expected).abs().max() <= TOWER_TOLERANCE * expected.abs().max()
    assert model.text.clip.logit_scale.item() == pytest.approx(3.1)

    anchors = Anchors.load(str(out.parent / 'anchors.safetensors'))
    assert anchors.logit_scale == pytest.approx(np.exp(3.1), rel=1e-6)
    start = 0
    for c, n in enumerate(counts):
        best = start + np.argsort(scores[start : start + n].astype(np.float64), kind='stable')[:number]
        assert anchors.counts[c] == min(n, number)
        assert np.array_equal(anchors.features[c, : len(best)].numpy(), embeddings[best])
        assert not anchors.features[c, len(best) :].any()
        start += n
    assert anchors.facts['classes'] == CLASSES

    # The LGR head takes both: the anchors fit the weights that are converted with them.
    head = MODELS.build(dict(lgr_model(kind)['head'], anchors=str(out.parent / 'anchors.safetensors')))
    head.set_class_info(ClassInfo(CLASSES))
    head.init_weights()
    head.bank.check_checkpoint(read_checkpoint(out)['state_dict'], 'ours')


def quick(kind):
    tower = dict(model=open_clip_name(kind), quick_gelu=True)
    return dict(backbone=dict(type='mmlt.OpenCLIPVision', **tower), text=dict(type='mmlt.OpenCLIPText', **tower))


def test_vlltr_anchors_with_their_sentences(tmp_path):
    pretraining_checkpoint(tmp_path / 'checkpoint.pth', 'vit')
    texts = {c: [f'The {c} is number {i}.' for i in range(n)] for c, n in zip(CLASSES, (3, 2, 4))}
    (tmp_path / 'texts.json').write_text(json.dumps(texts))
    np.save(tmp_path / 'e.npy', np.random.default_rng(0).normal(size=(12, 64)).astype(np.float32))
    np.save(tmp_path / 's.npy', -np.arange(12.0))
    arguments = [str(tmp_path / 'checkpoint.pth'), write_config(tmp_path, cvlp_model('vit'))]
    arguments += ['--out', str(tmp_path / 'o.pth'), '--num-anchors', '2', '--templates', 'a {}']
    arguments += ['--embeddings', str(tmp_path / 'e.npy'), '--scores', str(tmp_path / 's.npy')]
    import_vlltr.main([*arguments, '--texts', str(tmp_path / 'texts.json')])
    anchors = Anchors.load(str(tmp_path / 'anchors.safetensors'))
    assert anchors.sentences[1] == ['The dog is number 1.', 'The dog is number 0.']
    with pytest.raises(SystemExit, match='give --texts or --counts'):
        import_vlltr.main(arguments)
    with pytest.raises(SystemExit, match='converted with --counts, .*: leave out --templates'):
        import_vlltr.main([*arguments, '--counts', 'counts.txt'])
    arguments = [word for word in arguments if word not in ('--templates', 'a {}')]
    (tmp_path / 'counts.txt').write_text('3\n3\n3\n')
    with pytest.raises(SystemExit, match='has 12 sentences.* 12, and the classes have 9 together'):
        import_vlltr.main([*arguments, '--counts', str(tmp_path / 'counts.txt')])
    (tmp_path / 'counts.txt').write_text('3\nx\n')
    with pytest.raises(SystemExit, match='one whole number a line'):
        import_vlltr.main([*arguments, '--counts', str(tmp_path / 'counts.txt')])
    np.save(tmp_path / 'e.npy', np.zeros((12, 32), np.float32))
    (tmp_path / 'counts.txt').write_text('4\n4\n4\n')
    with pytest.raises(SystemExit, match='is 32 wide and the model 64'):
        import_vlltr.main([*arguments, '--counts', str(tmp_path / 'counts.txt')])
    (tmp_path / 'counts.txt').write_text('6\n6\n')
    np.save(tmp_path / 'e.npy', np.zeros((12, 64), np.float32))
    with pytest.raises(SystemExit, match='sentence counts of 2 classes'):
        import_vlltr.main([*arguments, '--counts', str(tmp_path / 'counts.txt')])
    with pytest.raises(SystemExit, match='belong together'):
        import_vlltr.main(arguments[:-2])


# VL-LTR, stage 2


@pytest.mark.parametrize('kind', ['vit', 'rn'])
@pytest.mark.parametrize('counted', [True, False])
def test_vlltr_recognition(tmp_path, capsys, kind, counted):
    published = recognition_checkpoint(tmp_path / 'checkpoint.pth', kind)
    config = write_config(tmp_path, lgr_model(kind, query_bias=counted))
    arguments = [str(tmp_path / 'checkpoint.pth'), config, '--out', str(tmp_path / 'lgr.pth')]
    if counted:
        (tmp_path / 'counts.txt').write_text('\n'.join(str(n) for n in COUNTS))
        arguments += ['--counts', str(tmp_path / 'counts.txt')]
    import_vlltr.main(arguments)
    printed = capsys.readouterr().out
    assert 'text_block.attn.norm1k.bias is left out' in printed and '6 of 12 anchor places' in printed
    assert ('head.query.bias is zero' in printed) == counted

    images = pictures()
    actual, model = logits_of(config, str(tmp_path / 'lgr.pth'), images, {'model.head.fusion': 0.2})
    weights = double(published)
    image = encode_images(kind, double(published, 'visual.'), images.double())
    expected = published_lgr(weights, image, COUNTS, 0.2)
    assert expected.max(0).values.min() < 0.9  # no saturated softmax
    assert (actual.softmax(-1) - expected).abs().max() <= 1e-5
    assert (actual - expected.log()).abs().max() <= 1e-5 * expected.log().abs().max().clamp(min=1)
    assert len(model.head.bank.sentences[1]) == 1


def test_counts_that_contradict_the_embeddings():
    features = torch.zeros(2, 3, 4)
    features[0, :2], features[1, :3] = 1, 1
    assert anchor_counts(features, None, 'x').tolist() == [2, 3]
    assert anchor_counts(features, [2, 70], 'x').tolist() == [2, 3]  # more sentences than anchors
    with pytest.raises(InputError, match="Class 0 of 'x' has sentence embeddings at 2 places, .* the first 3"):
        anchor_counts(features, [3, 3], 'x')
    with pytest.raises(InputError, match='counts of 1 classes'):
        anchor_counts(features, [3], 'x')
    features[0] = 0
    with pytest.raises(InputError, match='Class 0 has no anchor sentence'):
        anchor_counts(features, None, 'x')
    features[0, 2] = 1
    with pytest.raises(InputError, match='not the first 1'):
        anchor_counts(features, None, 'x')


def test_stage_2_takes_no_embeddings(tmp_path):
    recognition_checkpoint(tmp_path / 'checkpoint.pth', 'vit')
    config = write_config(tmp_path, lgr_model('vit'))
    arguments = [str(tmp_path / 'checkpoint.pth'), config, '--out', 'o.pth', '--texts', 'wiki']
    with pytest.raises(SystemExit, match='is of stage 2'):
        import_vlltr.main(arguments)


@pytest.mark.parametrize(
    'option', [('--num-anchors', '3'), ('--templates', 'a {}'), ('--scores', 's', '--embeddings', 'e')]
)
def test_stage_2_takes_no_options_of_stage_1(tmp_path, option):
    recognition_checkpoint(tmp_path / 'checkpoint.pth', 'vit')
    config = write_config(tmp_path, lgr_model('vit'))
    with pytest.raises(SystemExit, match=f'is of stage 2 and has its anchor .*: leave out .*{option[0]}'):
        import_vlltr.main([str(tmp_path / 'checkpoint.pth'), config, '--out', 'o.pth', *option])


@pytest.mark.parametrize('option', [('--counts', 'c.txt'), ('--texts', 'wiki'), ('--num-anchors', '3')])
def test_stage_1_without_embeddings_selects_nothing(tmp_path, option):
    pretraining_checkpoint(tmp_path / 'checkpoint.pth', 'vit')
    config = write_config(tmp_path, cvlp_model('vit'))
    with pytest.raises(SystemExit, match=f'without --embeddings and --scores no anchor .* leave out {option[0]}'):
        import_vlltr.main([str(tmp_path / 'checkpoint.pth'), config, '--out', 'o.pth', *option])


def test_hint_is_a_whole_command(tmp_path):
    (tmp_path / 'm y').mkdir()
    (tmp_path / 'm y' / 'lgr.py').touch()
    words = shlex.split(training_command(str(tmp_path / 'm y/lgr_cvlp.py'), 'o.pth', 'a b'))
    assert words[:4] == ['mmlt', 'train', str(tmp_path / 'm y/lgr.py'), '--cfg-options']
    assert words[4:] == ['stages=None', 'load_from=o.pth', 'model.head.anchors=a b']
    assert 'mmlt train CONFIG_OF_STAGE_2 --cfg' in training_command(str(tmp_path / 'other_cvlp.py'), 'o.pth', 'a')


def test_stage_2_of_another_number_of_classes(tmp_path):
    recognition_checkpoint(tmp_path / 'checkpoint.pth', 'vit', [2, 1])
    config = write_config(tmp_path, lgr_model('vit'))
    with pytest.raises(SystemExit, match='of shape|of 2 classes'):
        import_vlltr.main([str(tmp_path / 'checkpoint.pth'), config, '--out', str(tmp_path / 'o.pth')])


# What is left over, and what is not a checkpoint of this kind


def test_nothing_is_left_over(tmp_path):
    recognition_checkpoint(tmp_path / 'checkpoint.pth', 'vit')
    checkpoint = read_checkpoint(str(tmp_path / 'checkpoint.pth'))
    checkpoint['model']['text_block.gate'] = torch.zeros(1)
    with pytest.raises(InputError, match="'x' holds 'text_block.gate', for which there is no place"):
        from_vlltr_recognition(checkpoint, 'x')
    del checkpoint['model']['text_block.gate'], checkpoint['model']['text_block.attn.wk.weight']
    with pytest.raises(InputError, match="has no 'text_block.attn.wk.weight': it is incomplete"):
        from_vlltr_recognition(checkpoint, 'x')


@pytest.mark.parametrize('kind', ['ballad', 'pretraining', 'recognition'])
def test_what_lies_beside_the_model_is_told_or_refused(tmp_path, capsys, kind):
    path, out = tmp_path / 'published.pth', str(tmp_path / 'o.pth')
    write, model, name, told = {
        'ballad': (ballad_checkpoint, ballad_model, 'import_ballad', 'epoch, best_epoch, best_acc, centroids'),
        'pretraining': (pretraining_checkpoint, cvlp_model, 'import_vlltr', 'optimizer, lr_scheduler, epoch, scaler'),
        'recognition': (recognition_checkpoint, lgr_model, 'import_vlltr', 'args'),
    }[kind]
    write(path, 'vit')
    config = write_config(tmp_path, model('vit'))
    stubs.tool(f'model_converters/{name}').main([str(path), config, '--out', out])
    assert f'left out: {told}' in capsys.readouterr().out
    torch.save({**read_checkpoint(str(path)), 'junk': torch.zeros(2)}, path)
    with pytest.raises(SystemExit, match="holds 'junk' beside '(model|state_dict_best)', for which there is no place"):
        stubs.tool(f'model_converters/{name}').main([str(path), config, '--out', str(tmp_path / 'none.pth')])
    assert not (tmp_path / 'none.pth').exists()


def test_parts_of_ballad_that_are_none_or_no_weights(tmp_path):
    ballad_checkpoint(tmp_path / 'a.pth', 'vit', adapter=False)
    checkpoint = read_checkpoint(str(tmp_path / 'a.pth'))
    expected = from_ballad(checkpoint, 'x').state
    checkpoint['state_dict_best']['classifier'] = None
    assert from_ballad(checkpoint, 'x').state.keys() == expected.keys()
    checkpoint['state_dict_best']['classifier'] = torch.zeros(3)
    with pytest.raises(InputError, match="'x' has as 'classifier' a Tensor, no state dict"):
        from_ballad(checkpoint, 'x')


def test_the_longest_rule_holds():
    renamed = rename({'a.b.c': torch.zeros(1).half(), 'a.d': torch.ones(1)}, {'a.': 'x.', 'a.b.': 'y.'}, 's')
    assert list(renamed.state) == ['y.c', 'x.d']
    assert renamed.state['y.c'].dtype == torch.float32
    assert renamed.moved == {'a.': ('x.', 1), 'a.b.': ('y.', 1)}


def test_checkpoint_of_another_method(tmp_path):
    ballad_checkpoint(tmp_path / 'ballad.pth', 'vit')
    recognition_checkpoint(tmp_path / 'lgr.pth', 'vit')
    torch.save(dict(weights=torch.zeros(1)), tmp_path / 'other.pth')
    torch.save(dict(state_dict={'backbone.w': torch.zeros(1)}), tmp_path / 'ours.pth')
    config = write_config(tmp_path, ballad_model('vit'))
    for name, importer, sentence in (
        ('lgr', 'import_ballad', 'it is a checkpoint of VL-LTR stage 2: convert it with mmlt import vlltr'),
        ('ballad', 'import_vlltr', 'it is a checkpoint of BALLAD: convert it with mmlt import ballad'),
        ('other', 'import_ballad', r"another project's checkpoint \(its keys: weights\)"),
        ('ours', 'import_vlltr', 'which needs no conversion'),
    ):
        with pytest.raises(SystemExit, match=sentence):
            stubs.tool(f'model_converters/{importer}').main(
                [str(tmp_path / f'{name}.pth'), config, '--out', str(tmp_path / 'o.pth')]
            )
    assert checkpoint_kind(read_checkpoint(str(tmp_path / 'ballad.pth'))) == 'BALLAD'


class Foreign:
    pass


def test_files_run_no_code(tmp_path):
    torch.save(dict(model=Foreign()), tmp_path / 'a.pth')
    with pytest.raises(InputError, match="a.pth' cannot be read: it asks for .*Foreign, which could run") as error:
        read_checkpoint(str(tmp_path / 'a.pth'))
    assert 'weights_only' not in str(error.value)
    (tmp_path / 'empty.pth').touch()
    with pytest.raises(InputError, match="empty.pth' cannot be read: it is empty"):
        read_checkpoint(str(tmp_path / 'empty.pth'))
    with pytest.raises(InputError, match='does not exist'):
        read_checkpoint(str(tmp_path / 'b.pth'))
    torch.save([1], tmp_path / 'c.pth')
    with pytest.raises(InputError, match='holds a list'):
        read_checkpoint(str(tmp_path / 'c.pth'))
    np.save(tmp_path / 'objects.npy', np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(InputError, match="array '.*objects.npy' could not be read"):
        read_array(str(tmp_path / 'objects.npy'), 1)
    np.save(tmp_path / 'flat.npy', np.zeros(3))
    with pytest.raises(InputError, match=r'float64 of shape \(3,\), not floating-point numbers in 2 dimensions'):
        read_array(str(tmp_path / 'flat.npy'), 2)


@pytest.mark.parametrize('number', [np.nan, np.inf, 1e300])
def test_numbers_that_are_not_finite(tmp_path, number):
    np.save(tmp_path / 'scores.npy', np.array([0.5, number, 0.25]))
    with pytest.raises(InputError, match=r"scores.npy' holds 1 numbers that are not finite"):
        read_array(str(tmp_path / 'scores.npy'), 1)


# Back to open_clip


def test_back_to_open_clip(tmp_path, capsys):
    """BALLAD's published towers come out of our checkpoint as open_clip's, with the same features."""
    parts = ballad_checkpoint(tmp_path / 'published.pth', 'vit')
    config = write_config(tmp_path, ballad_model('vit'))
    ours, back = str(tmp_path / 'ours.pth'), str(tmp_path / 'clip.safetensors')
    import_ballad.main([str(tmp_path / 'published.pth'), config, '--out', ours])
    with pytest.raises(SystemExit, match="holds 'neck.linear.weight', .* leave it out with --drop neck"):
        to_open_clip_verb.main([ours, back])
    capsys.readouterr()
    to_open_clip_verb.main([ours, back, '--drop', 'neck.'])
    printed = capsys.readouterr().out
    assert 'neck.linear.weight is left out, as asked' in printed and 'force_quick_gelu=True' in printed
    clip = open_clip.create_model('mmlt-tiny-vit', pretrained=back, force_quick_gelu=True).eval()
    images = pictures()
    with torch.no_grad():
        actual = clip.encode_image(images).double()
    expected = vit(double(parts['visual_model']), images.double())
    assert (actual - expected).abs().max() <= TOWER_TOLERANCE * expected.abs().max()
    assert load_file(back).keys() == clip.state_dict().keys()


def test_open_clip_needs_both_towers():
    image = {'backbone.visual.conv1.weight': torch.zeros(1)}
    with pytest.raises(InputError, match='needs a text tower'):
        to_open_clip(image, 'x')
    with pytest.raises(InputError, match='needs an image tower'):
        to_open_clip({'head.text.clip.logit_scale': torch.zeros(())}, 'x')
    with pytest.raises(InputError, match='nothing below neck. to leave out'):
        to_open_clip(image, 'x', ['neck.'])

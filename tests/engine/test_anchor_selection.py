"""VL-LTR's two stages through tools/train.py: what the first leaves for the second, and what is refused."""

import inspect
import logging
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from mmengine.runner import find_latest_checkpoint
from safetensors.torch import load_file

from mmlt import InputError
from mmlt.checkpoints import read_checkpoint
from mmlt.cli import select_anchors as tool
from mmlt.datasets import ClassTexts
from mmlt.engine import anchors as engine_anchors
from mmlt.engine.hooks import AnchorSelectionHook, EpochHook
from mmlt.models.anchors import Anchors
from mmlt.utils import tensors_fingerprint, texts_fingerprint

MODEL = 'mmlt-tiny-vit'
ARTICLES = {
    'apple': 'An apple is round. It is often red. Apples grow on trees. Some bake it into pies. It keeps for months.',
    'pear': 'A pear is green and sweet.',
    'plum': 'A plum is small. It has a stone. Plums are blue.\n== References ==\nA book about plums.',
}


class _PowerCut(Exception):
    pass


@pytest.fixture
def vlltr(two_stages, clip_file) -> Path:
    """cvlp.py and lgr.py on the picture folder, with an article about every class below texts/."""
    folder = two_stages / 'texts'
    folder.mkdir()
    for name, text in ARTICLES.items():
        (folder / f'{name}.txt').write_text(text)
    clip = f"model='{MODEL}', pretrained='{clip_file}'"
    texts = "dict(dataset=dict(class_texts='texts'))"
    (two_stages / 'cvlp.py').write_text(
        f"""
_base_ = ['./a.py']
model = dict(
    _delete_=True, type='mmlt.CVLP', templates='a photo of the {{}}',
    backbone=dict(type='mmlt.OpenCLIPVision', {clip}),
    text=dict(type='mmlt.OpenCLIPText', {clip}),
    texts=dict(type='mmlt.ClassTexts', templates='a photo of the {{}}'),
    teacher=dict({clip}),
    data_preprocessor=dict(type='mmlt.CLIPDataPreprocessor'))
train_dataloader, val_dataloader, test_dataloader = {texts}, {texts}, {texts}
train_cfg = dict(max_epochs=2, val_interval=2)
default_hooks = dict(anchors=dict(type='mmlt.AnchorSelectionHook', num_anchors=4, images_per_class=2))
"""
    )
    (two_stages / 'lgr.py').write_text(
        f"""
_base_ = ['./a.py']
stages = dict(cvlp=dict(config='cvlp.py', load_from=True))
model = dict(
    _delete_=True, type='ImageClassifier',
    backbone=dict(type='mmlt.OpenCLIPVision', model='{MODEL}'),
    head=dict(type='mmlt.LGRHead', num_classes=3, in_channels=64, anchors='{{stage:cvlp}}/anchors.safetensors'),
    data_preprocessor=dict(type='mmlt.CLIPDataPreprocessor'))
train_dataloader, val_dataloader, test_dataloader = {texts}, {texts}, {texts}
train_cfg = dict(max_epochs=2, val_interval=2)
"""
    )
    return two_stages


def weights(folder):
    return read_checkpoint(find_latest_checkpoint(str(folder)))['state_dict']


def times(folder, pattern):
    return {p.name: p.stat().st_mtime_ns for p in Path(folder).glob(pattern)}


def test_from_nothing_to_the_table(vlltr, train_tool, capsys, caplog):
    with caplog.at_level(logging.INFO):
        metrics = train_tool.main(['lgr.py'])
    out, progress = capsys.readouterr()
    assert 'Stage 1/2: cvlp' in out and 'Stage 2/2: lgr' in out
    assert '%|' not in progress  # bars are for terminals
    assert 0 <= metrics['shot/all'] <= 100
    work = vlltr / 'work_dirs/lgr'

    # What stage 1 leaves: the four best sentences a class, a class of two is padded and this is said once.
    anchors = Anchors.load(str(work / 'cvlp/anchors.safetensors'))
    corpus = [
        ['a photo of the apple', *(s + '.' for s in ARTICLES['apple'].rstrip('.').split('. '))],
        ['a photo of the pear', ARTICLES['pear']],
        ['a photo of the plum', 'A plum is small.', 'It has a stone.', 'Plums are blue.'],
    ]
    assert anchors.features.shape == (3, 4, 64) and anchors.counts.tolist() == [4, 2, 4]
    assert all(set(own) <= set(theirs) for own, theirs in zip(anchors.sentences, corpus))
    first = weights(work / 'cvlp')
    assert anchors.facts['classes'] == ['apple', 'pear', 'plum']
    assert anchors.facts['corpus'] == texts_fingerprint(corpus) and anchors.facts['num_sentences'] == 12
    tower = {k.removeprefix('backbone.'): v for k, v in first.items() if k.startswith('backbone.')}
    assert anchors.facts['image_tower'] == tensors_fingerprint(tower)
    assert anchors.logit_scale == pytest.approx(first['head.text.clip.logit_scale'].exp().item(), rel=1e-6)
    assert int(first['steps']) == 4 and not any(k.startswith('teacher') for k in first)
    console = out + caplog.text
    assert '10 of 12 sentences are anchors' in console
    assert '1 of 3 classes have fewer and are padded' in console

    # The listing has all sentences with their scores, the best first.
    listing = (work / 'cvlp/anchors.txt').read_text(encoding='utf-8')
    for own, name in zip(corpus, ARTICLES):
        block = listing.split(f'{name} ({len(own)} sentences)\n')[1].split('\n\n')[0].splitlines()
        scores, told = zip(*((float(line.split()[0]), line.split(None, 1)[1]) for line in block))
        assert sorted(told) == sorted(own) and list(scores) == sorted(scores)
        c = list(ARTICLES).index(name)
        assert list(told[: anchors.counts[c]]) == anchors.sentences[c]

    # Stage 2 starts from stage 1's image tower, and carries the anchors.
    last = weights(work)
    assert torch.equal(last['head.anchor_features'], anchors.features)
    assert not torch.equal(last['backbone.visual.proj'], first['backbone.visual.proj'])  # trained

    # Again: nothing is done twice.
    before = {**times(work / 'cvlp', '*.*'), **times(work, '*.pth')}
    assert train_tool.main(['lgr.py']) == pytest.approx(metrics)
    assert capsys.readouterr().out.count('already finished') == 2
    assert {**times(work / 'cvlp', '*.*'), **times(work, '*.pth')} == before


def test_scores_are_those_of_the_trained_towers(vlltr, train_tool):
    """Against open_clip's own towers on the pictures, seen through the test pipeline; all 10 pictures here."""
    import open_clip
    from PIL import Image

    train_tool.main(
        ['cvlp.py', '--work-dir', 'w', '--no-test', '--cfg-options', 'default_hooks.anchors.images_per_class=50']
    )
    anchors = Anchors.load('w/anchors.safetensors')
    state = weights('w')
    clip = open_clip.create_model(MODEL).eval()
    clip.visual.load_state_dict({k[16:]: v for k, v in state.items() if k.startswith('backbone.visual.')})
    own = {k[15:]: v for k, v in state.items() if k.startswith('head.text.clip.')}
    clip.load_state_dict(own, strict=False)
    files, labels = zip(*(line.split() for line in Path('train.txt').read_text().splitlines()))
    labels = np.array(labels, dtype=int)
    mean, std = (np.array(x) for x in (open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD))
    images = []
    for f in files:
        import mmcv

        pixels = mmcv.imresize(np.asarray(Image.open(f'images/{f}').convert('RGB')), (32, 32))
        images.append(torch.from_numpy((pixels / 255 - mean) / std).permute(2, 0, 1).float())
    with torch.no_grad():
        image = F.normalize(clip.encode_image(torch.stack(images)), dim=-1).double()
        for c, (sentences, scores) in enumerate(zip(anchors.sentences, anchors.scores)):
            text = clip.encode_text(open_clip.get_tokenizer(MODEL)(sentences))
            assert torch.allclose(text, anchors.features[c, : len(sentences)], atol=1e-4)
            logits = clip.logit_scale.exp() * F.normalize(text.double(), dim=-1) @ image.t()
            expected = logits.logsumexp(1) - logits[:, labels == c].mean(1)
            assert (scores[: len(sentences)] - expected).abs().max() <= 1e-3


@pytest.mark.parametrize('method', ['cutoff', 'random'])
def test_other_methods_from_the_config(vlltr, train_tool, method):
    options = [
        'default_hooks.anchors.num_anchors=2',
        f'default_hooks.anchors.method={method}',
        'train_cfg.max_epochs=1',
    ]
    train_tool.main(['cvlp.py', '--work-dir', 'w', '--no-test', '--no-validate', '--cfg-options', *options])
    anchors = Anchors.load('w/anchors.safetensors')
    assert anchors.facts['method'] == method and anchors.counts.tolist() == [2, 2, 2]
    if method == 'cutoff':
        assert anchors.sentences[0] == ['a photo of the apple', 'An apple is round.']


@pytest.mark.slow
def test_stopped_within_and_between_the_stages(vlltr, train_tool, capsys, monkeypatch):
    """After the first epoch, and after the last one but before the anchors: it ends as a run that was not stopped."""
    train_tool.main(['lgr.py', '--work-dir', 'whole'])
    work = vlltr / 'work_dirs/lgr'

    def cut(hook, runner):
        if not isinstance(hook, EpochHook) or runner.epoch == 1:
            raise _PowerCut

    for hook, method, epoch in ((EpochHook, 'before_train_epoch', 1), (AnchorSelectionHook, 'after_train', 2)):
        with monkeypatch.context() as patch, pytest.raises(_PowerCut):
            patch.setattr(hook, method, cut)
            train_tool.main(['lgr.py'])
        assert int(weights(work / 'cvlp')['steps']) == 2 * epoch
        assert not (work / 'cvlp/anchors.safetensors').exists()
    before = times(work / 'cvlp', 'epoch_*.pth')
    capsys.readouterr()
    train_tool.main(['lgr.py'])
    out = capsys.readouterr().out
    assert 'cvlp (work_dirs/lgr/cvlp): resuming' in out and 'lgr (work_dirs/lgr): training' in out
    assert times(work / 'cvlp', 'epoch_*.pth') == before  # no epoch was repeated
    a, b = (Anchors.load(f'{w}/cvlp/anchors.safetensors') for w in ('whole', work))
    assert a.sentences == b.sentences and torch.allclose(a.features, b.features, atol=1e-5)
    for stage in ('cvlp', '.'):
        a, b = weights(f'whole/{stage}'), weights(work / stage)
        assert all(torch.allclose(a[k].float(), b[k].float(), atol=1e-5) for k in a)


# What does not belong together


def test_anchors_that_do_not_belong(vlltr, train_tool):
    """One finished first stage, and second stages that it does not fit."""
    train_tool.main(['cvlp.py', '--work-dir', 'shared', '--no-test', '--no-validate'])

    def refused(*options, stage='shared'):
        folder = f'refused/{len(list(Path().glob("refused/*")))}'
        command = ['lgr.py', '--work-dir', folder, '--cfg-options', f'stages.cvlp.work_dir={stage}', *options]
        with pytest.raises(SystemExit) as stop:
            train_tool.main(command)
        assert '\n' not in str(stop.value)
        return str(stop.value)

    assert 'num_anchors (M) is 4 in the file and 5 in the config' in refused('model.head.num_anchors=5')
    assert 'in_channels (D) is 64 in the file and 32 in the config' in refused('model.head.in_channels=32')
    changed = refused('stages.cvlp.options.default_hooks.anchors.num_anchors=3')
    assert "'shared' holds a run of another config: default_hooks.anchors.num_anchors was 4 and is now 3" in changed

    Path('other').mkdir()
    state = read_checkpoint(find_latest_checkpoint('shared'))
    state['state_dict']['backbone.visual.proj'] += 1e-6
    torch.save(state, 'other/epoch_2.pth')
    for name in ('run.json', 'last_checkpoint'):
        Path('other', name).write_text(Path('shared', name).read_text().replace('shared', 'other'))
    other = refused('model.head.anchors=shared/anchors.safetensors', stage='other')
    assert "'shared/anchors.safetensors' were made with other weights than those of" in other
    assert 'other/epoch_2.pth' in other

    Path('texts/pear.txt').write_text('A pear is yellow and sweet.')
    assert "shared/anchors.safetensors' were selected from another corpus than the dataset's class texts" in refused()
    Path('classes.txt').write_text('apple\nplum\npear\n')
    assert "of another class list: class 1 is 'pear' there and 'plum' in the dataset" in refused()


def test_an_unchanged_corpus_is_not_read_again(vlltr, train_tool, monkeypatch):
    """Stage 2 opens none of its files; where their times differ, as in a copy, it reads and compares them."""
    train_tool.main(['cvlp.py', '--work-dir', 'shared', '--no-test', '--no-validate'])
    reads, read = [], ClassTexts.read
    monkeypatch.setattr(ClassTexts, 'read', lambda *args: reads.append(1) or read(*args))
    for name in ('same', 'touched'):
        if name == 'touched':
            os.utime('texts/pear.txt', ns=(1, 1))
        train_tool.main(['lgr.py', '--work-dir', name, '--cfg-options', 'stages.cvlp.work_dir=shared'])
        assert len(reads) == (name == 'touched'), name


def test_class_without_text(vlltr, train_tool):
    Path('texts/pear.txt').write_text('Too short.')
    with pytest.raises(
        SystemExit, match=r"1 of 3 classes have texts .* too short, .* min_words=3 words: 'pear'\. Write"
    ):
        train_tool.main(['lgr.py', '--cfg-options', 'stages.cvlp.options.model.texts.templates=None'])


def test_corpus_in_a_broken_encoding(vlltr, train_tool):
    Path('texts/plum.txt').write_bytes(b'A plum \xff\xff')
    with pytest.raises(SystemExit, match=r"texts/plum\.txt' is neither UTF-8 nor GBK: byte 8 is 0xff"):
        train_tool.main(['lgr.py'])


def test_distillation_without_teacher(vlltr, train_tool):
    with pytest.raises(SystemExit, match=r'loss_ratio=0\.5 asks for distillation, but there is no teacher'):
        train_tool.main(['lgr.py', '--cfg-options', 'stages.cvlp.options.model.teacher=None'])


def test_hook_of_another_model(vlltr, train_tool):
    with pytest.raises(SystemExit, match='AnchorSelectionHook selects sentences of mmlt.CVLP'):
        train_tool.main(['a.py', '--cfg-options', 'default_hooks.anchors.type=mmlt.AnchorSelectionHook'])


def test_a_best_checkpoint_beside_anchors_of_the_last_weights(vlltr, train_tool):
    with pytest.raises(SystemExit, match='with save_best the next stage would take the best ones: remove save_best'):
        train_tool.main(['lgr.py', '--cfg-options', 'stages.cvlp.options.default_hooks.checkpoint.save_best=shot/all'])
    assert not list(Path('work_dirs').rglob('*.pth'))


def test_arguments_of_the_hook():
    with pytest.raises(InputError, match="method 'best' is unknown; choose one of anss, cutoff, random"):
        AnchorSelectionHook(method='best')
    for wrong in (dict(num_anchors=0), dict(images_per_class=0)):
        with pytest.raises(InputError, match='(num_anchors|images_per_class) is 0; it must be at least 1'):
            AnchorSelectionHook(**wrong)


@pytest.mark.parametrize(
    'arguments, expected',
    [
        ([], dict(num_anchors=4, images_per_class=2, method='anss')),  # the config's
        (['--images-per-class', '3'], dict(num_anchors=4, images_per_class=3, method='anss')),
        (['--num-anchors', '3', '--method', 'random'], dict(num_anchors=3, images_per_class=2, method='random')),
        (['--seed', '7'], dict(seed=7)),
    ],
)
def test_arguments_of_the_tool(vlltr, monkeypatch, arguments, expected):
    asked, signature = {}, inspect.signature(engine_anchors.select_anchors)

    def select(*args, **settings):
        bound = signature.bind(*args, **settings)
        bound.apply_defaults()
        asked.update(bound.arguments)
        return None, None

    monkeypatch.setattr(engine_anchors, 'select_anchors', select)
    monkeypatch.setattr(engine_anchors, 'write_anchors', lambda *args: None)
    tool.main(['cvlp.py', '--out', 'anchors.safetensors', *arguments])
    assert expected.items() <= asked.items()


@pytest.mark.parametrize('number, seen', [(1, 3), (2, 5), (50, 10)])
def test_images_per_class_of_the_tool(vlltr, monkeypatch, number, seen):
    """Of 6, 3 and 1 pictures."""
    looked_at = []
    original = engine_anchors.compute_features

    def watch(model, dataset, *args, **kwargs):
        looked_at.append(len(dataset))
        return original(model, dataset, *args, **kwargs)

    monkeypatch.setattr(engine_anchors, 'compute_features', watch)
    tool.main(['cvlp.py', '--out', 'anchors.safetensors', '--images-per-class', str(number)])
    assert looked_at == [seen]


def test_averaged_weights(vlltr, train_tool):
    """With EMA the checkpoint holds the average: the anchors must be those of it."""
    ema = "custom_hooks = [dict(type='EMAHook', momentum=0.5)]\n"
    for name in ('cvlp.py', 'lgr.py'):
        with open(name, 'a') as f:
            f.write(ema)
    train_tool.main(['cvlp.py', '--work-dir', 'w/cvlp', '--no-test', '--no-validate'])
    anchors = Anchors.load('w/cvlp/anchors.safetensors')
    tower = {k.removeprefix('backbone.'): v for k, v in weights('w/cvlp').items() if k.startswith('backbone.')}
    assert anchors.facts['image_tower'] == tensors_fingerprint(tower)
    metrics = train_tool.main(['lgr.py', '--work-dir', 'w'])
    assert 0 <= metrics['shot/all'] <= 100


# Several processes

# One step of plain SGD, so that the change of the weights is the gradient.
ONE_STEP = [
    'train_cfg.max_epochs=1',
    'optim_wrapper.optimizer.momentum=0.0',
    'optim_wrapper.optimizer.lr=0.01',
    'param_scheduler=None',
]


def launch(repo, env, config, processes, work_dir, *options):
    command = ['bash', repo / 'tools/dist_train.sh', config, str(processes), '--work-dir', work_dir, '--no-test']
    command += ['--no-validate', '--cfg-options', *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=400, env=env)
    assert done.returncode == 0, done.stdout[-1500:] + done.stderr[-3000:]


@pytest.mark.slow
def test_two_processes_take_the_steps_of_one(vlltr, repo, launcher_env, train_tool, clip_file):
    """One step of CVLP, the anchor selection and one step of LGR on global batches of 8."""
    options = [*ONE_STEP, *(f'stages.cvlp.options.{o}' for o in ONE_STEP)]
    size = [f'{prefix}train_dataloader.batch_size' for prefix in ('', 'stages.cvlp.options.')]
    command = ['lgr.py', '--work-dir', 'one', '--no-test', '--no-validate', '--cfg-options', *options]
    train_tool.main(command + [f'{s}=8' for s in size])
    launch(repo, launcher_env, 'lgr.py', 2, 'two', *options, *(f'{s}=4' for s in size))
    a, b = (Anchors.load(f'{w}/cvlp/anchors.safetensors') for w in ('one', 'two'))
    assert a.sentences == b.sentences and a.facts['corpus'] == b.facts['corpus']
    assert (a.features - b.features).abs().max() <= 1e-5 * a.features.abs().max()

    given = load_file(clip_file)
    names = {k: k.removeprefix('backbone.').removeprefix('head.text.clip.') for k in weights('one/cvlp')}
    start = {k: given[n] for k, n in names.items() if n in given}
    for folder, least in (('cvlp', 40), ('.', 25)):
        one, two = weights(f'one/{folder}'), weights(f'two/{folder}')
        assert one.keys() == two.keys()
        steps = {k: (one[k] - v, two[k] - v) for k, v in start.items() if k in one and v.is_floating_point()}
        assert len(steps) >= least
        largest = max(x.norm() for x, _ in steps.values())
        for name, (x, y) in steps.items():
            assert (x - y).norm() <= 2e-4 * largest, name
        assert sum(x.norm() > 1e-2 * largest for x, _ in steps.values()) >= 10
        for name in one.keys() - steps.keys():  # the head, which starts from the same seed
            assert torch.allclose(one[name].float(), two[name].float(), atol=1e-5), name
        start = {
            **one,
            'head.query.weight': torch.eye(64),
            'head.key.weight': torch.eye(64),
            'head.norm_key.weight': torch.ones(64),
        }

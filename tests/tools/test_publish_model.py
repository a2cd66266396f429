"""publish_model.py: merged or stripped, checked, and loadable by the plain config."""

import os
from pathlib import Path

import pytest
import torch
from mmpretrain.registry import MODELS

from mmlt.checkpoints import read_checkpoint
from mmlt.checkpoints.split_state import merge_state_dict
from mmlt.cli import publish as tool
from mmlt.cli.work import publish as work

MODEL = dict(
    type='ImageClassifier',
    backbone=dict(type='mmlt.CIFARResNet', depth=8, base_channels=8),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(type='LinearClsHead', num_classes=3, in_channels=32),
)
HEADER = "custom_imports = dict(imports=['mmlt'])\ndefault_scope = 'mmpretrain'\n"


@pytest.fixture
def files(tmp_path, monkeypatch):
    """more.pth and plain.pth as a training leaves them, plain.py and other.py."""
    monkeypatch.chdir(tmp_path)
    Path('plain.py').write_text(f'{HEADER}model = {MODEL}')
    Path('other.py').write_text(f'{HEADER}model = {MODEL}'.replace("'num_classes': 3", "'num_classes': 4"))
    hooks = "custom_hooks = [dict(type='mmlt.MOREHook'), dict(type='EMAHook')]"
    for name, cfg in (('more', dict(type='mmlt.MORE', classifier=MODEL)), ('plain', MODEL)):
        torch.manual_seed(1)
        model = MODELS.build(cfg)
        for parameter in model.parameters():
            parameter.data += 0.05 * torch.randn_like(parameter)
        optimizer = torch.optim.Adam(model.parameters())
        sum(p.sum() for p in model.parameters()).backward()
        optimizer.step()
        torch.save(
            dict(
                meta=dict(epoch=3, cfg=f'{HEADER}model = {cfg}\n{hooks}', dataset_meta=dict(classes=('a', 'b', 'c'))),
                state_dict=model.state_dict(),
                optimizer=optimizer.state_dict(),
                ema_state_dict={f'module.{k}': v for k, v in model.state_dict().items()},
                message_hub=dict(log_scalars={}),
                param_schedulers=[dict(last_step=3)],
            ),
            f'{name}.pth',
        )
    return tmp_path


def load(path):
    return read_checkpoint(path)


def test_more_is_merged_checked_and_smaller(files, capsys):
    tool.main(['more.pth', 'out.pth', '--config', 'plain.py', '--size', '32'])
    out = capsys.readouterr().out
    assert 'Equivalence check: on 4 images' in out and "fit 'plain.py' key by key" in out and 'MB of' in out
    published, source = load('out.pth'), load('more.pth')
    assert set(published) == {'meta', 'state_dict'}
    expected = merge_state_dict(source['state_dict'])
    assert set(published['state_dict']) == set(MODELS.build(MODEL).state_dict())
    assert all(torch.equal(v, expected[k]) for k, v in published['state_dict'].items())
    assert published['meta']['dataset_meta'] == source['meta']['dataset_meta'] and published['meta']['epoch'] == 3
    text = published['meta']['cfg']
    assert "type='ImageClassifier'" in text and 'MORE' not in text and 'EMAHook' in text
    assert os.path.getsize('out.pth') < os.path.getsize('more.pth') / 3


def test_plain_checkpoint_is_stripped(files, capsys):
    tool.main(['plain.pth', 'out.pth'])
    assert 'Equivalence' not in capsys.readouterr().out
    published, source = load('out.pth'), load('plain.pth')
    assert set(published) == {'meta', 'state_dict'} and published['meta'] == source['meta']
    assert all(torch.equal(v, source['state_dict'][k]) for k, v in published['state_dict'].items())


def test_published_twice_is_the_same(files):
    tool.main(['more.pth', 'one.pth', '--size', '32'])
    tool.main(['one.pth', 'two.pth'])
    one, two = load('one.pth'), load('two.pth')
    assert one['meta'] == two['meta']
    assert all(torch.equal(v, two['state_dict'][k]) for k, v in one['state_dict'].items())


def test_size_of_the_images():
    model = MODELS.build(dict(MODEL, backbone=dict(type='mmlt.OpenCLIPVision', model='mmlt-tiny-vit'), neck=None))
    assert work.image_size(model) == 32
    vit = dict(type='VisionTransformer', arch='deit-tiny', img_size=64)
    assert work.image_size(MODELS.build(dict(MODEL, backbone=vit, neck=None))) == 64
    assert work.image_size(MODELS.build(MODEL)) == 224


def change(path, edit):
    checkpoint = load(path)
    edit(checkpoint)
    torch.save(checkpoint, 'changed.pth')


@pytest.mark.parametrize(
    ('arguments', 'edit', 'message'),
    [
        (['none.pth', 'out.pth'], None, "'none.pth' does not exist"),
        (['more.pth', './more.pth'], None, 'would overwrite its source'),
        (['more.pth', 'out.pth', '--config', 'other.py'], None, "of shape .*, but the model of 'other.py' has"),
        (['changed.pth', 'out.pth'], lambda c: c.pop('state_dict'), 'has no state_dict'),
        (['changed.pth', 'out.pth'], lambda c: c['meta'].pop('cfg'), 'carries no config'),
        (
            ['changed.pth', 'out.pth'],
            lambda c: c['state_dict'].pop('head.fc.parametrizations.weight.0.B'),
            "but not 'head.fc.parametrizations.weight.0.B'",
        ),
    ],
)
def test_bad_input_is_named_and_writes_nothing(files, arguments, edit, message):
    if edit is not None:
        change('more.pth', edit)
    before = os.path.getsize('more.pth')
    with pytest.raises(SystemExit, match=message):
        tool.main([*arguments, '--size', '32'])
    assert not Path('out.pth').exists() and os.path.getsize('more.pth') == before


def test_wrong_merge_is_found(files, monkeypatch):
    """The check compares what the models say, so a wrong sum cannot pass it."""
    real = work.publish_checkpoint

    def wrong(checkpoint):
        published = real(checkpoint)
        published['state_dict']['backbone.conv1.weight'] += 1e-3
        return published

    monkeypatch.setattr(work, 'publish_checkpoint', wrong)
    with pytest.raises(SystemExit, match='Merging changed the model'):
        tool.main(['more.pth', 'out.pth', '--size', '32'])
    assert not Path('out.pth').exists()


class Evil:
    def __reduce__(self):
        return os.system, ('touch evil',)


def test_checkpoint_that_would_run_code_is_refused(files):
    torch.save(dict(state_dict=dict(a=Evil())), 'evil.pth')
    with pytest.raises(SystemExit, match="'evil.pth' cannot be read: it asks for posix.system, which"):
        tool.main(['evil.pth', 'out.pth'])
    assert not Path('evil').exists() and not Path('out.pth').exists()

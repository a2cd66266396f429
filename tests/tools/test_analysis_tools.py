"""The tools that draw and compare runs, as they are called."""

import json
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import open_clip
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmpretrain.registry import MODELS
from PIL import Image
from safetensors.torch import load_file

from mmlt.checkpoints import read_checkpoint
from mmlt.cli import compare
from mmlt.cli import plot_class_gain as gain
from mmlt.cli import plot_losses as losses
from mmlt.cli import retrieve_concepts as retrieve
from mmlt.cli.work.retrieve_concepts import retrieval_config
from mmlt.cli.work.retrieve_concepts import retrieve as retrieve_pictures
from mmlt.visualization import read_losses

REPO = Path(__file__).parent.parent.parent
FOLDER = REPO / 'tools/analysis_tools'


def write_report(folder, accuracy):
    folder.mkdir(parents=True)
    per_class = [
        {'class': c, 'train_images': n, 'shot': s, 'accuracy': a}
        for c, n, s, a in zip(('apple', 'pear', 'plum'), (200, 50, 3), ('many', 'medium', 'few'), accuracy)
    ]
    metrics = {'all': float(np.mean(accuracy)), **dict(zip(('many', 'medium', 'few'), accuracy))}
    report = {'protocol': 'standard', 'metrics': metrics, 'per_class': per_class}
    (folder / 'shot_report.json').write_text(json.dumps(report))


def colours(path) -> int:
    with Image.open(path) as image:
        assert image.format == 'PNG'
        return len(np.unique(np.asarray(image.convert('RGB')).reshape(-1, 3), axis=0))


@pytest.fixture
def reports(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write_report(tmp_path / 'ours', [90.0, 80.0, 70.0])
    write_report(tmp_path / 'ours1', [94.0, 84.0, 74.0])
    write_report(tmp_path / 'ce', [95.0, 70.0, 20.0])
    return tmp_path


def test_gain_from_folder_and_file(reports, capsys):
    gain.main(['ours', 'ce/shot_report.json', '-o', 'pictures/g.png'])
    assert 'Picture: pictures/g.png' in capsys.readouterr().out
    assert colours('pictures/g.png') > 20
    assert gain.run_name('ours') == 'ours' and gain.run_name('ce/shot_report.json') == 'ce'


def test_table_of_runs(reports, capsys):
    compare.main(['VL-LTR=ours,ours1', 'ce', '--markdown'])
    assert capsys.readouterr().out.splitlines() == [
        '| top-1 in percent, protocol standard (many, medium, few and all: mean over classes) | many | medium | few '
        '| mean over classes |',
        '| :-- | :-: | :-: | :-: | :-: |',
        '| VL-LTR | 92.0 ± 2.8 | 82.0 ± 2.8 | 72.0 ± 2.8 | 82.0 ± 2.8 |',
        '| ce | 95.0 | 70.0 | 20.0 | 61.7 |',
    ]
    compare.main(['VL-LTR=ours,ours1', 'ce'])
    text = capsys.readouterr().out
    assert 'protocol standard' in text and '72.0 ± 2.8' in text and '61.7' in text


def test_missing_report_ends_in_one_line_and_code_1(reports):
    command = [sys.executable, FOLDER / 'plot_class_gain.py', 'ours', 'nowhere']
    done = subprocess.run(command, capture_output=True, text=True, timeout=100)
    assert done.returncode == 1
    assert done.stderr.startswith("mmlt: There is no report 'nowhere'") and done.stderr.count('\n') == 1
    assert not Path('class_gain.png').exists()
    with pytest.raises(SystemExit, match=r"^mmlt: There is no report 'nowhere'"):
        compare.main(['ours', 'nowhere'])


def test_losses_of_a_training_and_of_one_without_validation(two_stages, train_tool, capsys):
    train_tool.main(['a.py', '--no-test', '--cfg-options', 'train_cfg.val_interval=1'])
    train_tool.main(['a.py', '--no-test', '--no-validate', '--work-dir', 'blind', '--resume'])
    capsys.readouterr()
    losses.main(['work_dirs/a', 'blind', '-o', 'l.png'])
    out = capsys.readouterr().out
    assert "'blind' has no validation loss" in out and "'a' has no" not in out
    assert colours('l.png') > 20
    curves = read_losses('work_dirs/a')
    assert [x for x, _ in curves.train] == [1, 2, 3]
    assert [x for x, _ in curves.val['shot/nll']] == [1, 2, 3]
    assert all(0 < y < 20 for _, y in curves.val['shot/nll'])
    with pytest.raises(SystemExit, match=r"^mmlt: 'nowhere' holds no log"):
        losses.main(['nowhere'])


# Retrieval


@pytest.fixture
def towers(two_stages, clip_file) -> Path:
    """a.py's model with other weights than the pretrained ones, as the checkpoint towers.pth."""
    cfg = Config.fromfile('a.py')
    init_default_scope('mmpretrain')
    model = MODELS.build(cfg.model)
    model.init_weights()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    torch.save({'state_dict': model.state_dict()}, 'towers.pth')
    return two_stages


def load_state(path):
    return read_checkpoint(path)['state_dict']


def args_of(*arguments):
    return retrieve.parse_args([*arguments, '--words', 'a blue plum', 'fruit', '-k', '3'])


def found(config, checkpoint, args):
    return retrieve_pictures(retrieval_config(config, args.cfg_options), checkpoint, args)


def naive(folder, split, state_file, words):
    """Per text the pictures as arrays and their cosines, best first, one by one through open_clip."""
    clip = open_clip.create_model('mmlt-tiny-vit')
    if state_file.endswith('.safetensors'):
        clip.load_state_dict(load_file(state_file))
    else:
        state = load_state(state_file).items()
        names = {k: k.replace('backbone.visual.', 'visual.').replace('head.text.clip.', '') for k, _ in state}
        clip.load_state_dict({names[k]: v for k, v in state if k.startswith(('backbone.visual.', 'head.text.clip.'))})
    clip.eval().double()
    mean = torch.tensor([122.7709383, 116.7460125, 104.09373615])
    std = torch.tensor([68.5005327, 66.6321579, 70.3231630])
    ranked, pictures, features = [], [], []
    for line in (folder / f'{split}.txt').read_text().split('\n')[:-1]:
        with Image.open(folder / 'images' / line.split(' ')[0]) as image:
            # As mmcv resizes, so that only the model differs.
            pictures.append(cv2.resize(np.asarray(image), (32, 32), interpolation=cv2.INTER_LINEAR))
        x = (torch.from_numpy(pictures[-1]).double() - mean) / std
        features.append(clip.encode_image(x.permute(2, 0, 1)[None], normalize=True)[0])
    for word in words:
        text = clip.encode_text(open_clip.get_tokenizer('mmlt-tiny-vit')([word]), normalize=True)[0]
        cosines = [float(text @ f) for f in features]
        order = sorted(range(len(cosines)), key=lambda i: -cosines[i])
        ranked.append([(pictures[i], cosines[i]) for i in order])
    return ranked


@pytest.mark.parametrize('split', ['test', 'train'])
@pytest.mark.parametrize('checkpoint', ['towers.pth', 'pretrained'])
def test_nearest_pictures_are_those_of_open_clip(towers, clip_file, split, checkpoint):
    args = args_of('a.py', '--split', split)
    rows = found('a.py', checkpoint, args)
    weights = clip_file if checkpoint == 'pretrained' else checkpoint
    with torch.no_grad():
        expected = naive(towers, split, weights, args.words)
    assert len(rows) == 2
    for row, ranked in zip(rows, expected):
        assert len(row) == 3
        for (picture, cosine), (other, value) in zip(row, ranked):
            assert cosine == pytest.approx(value, abs=1e-5)
            np.testing.assert_array_equal(picture, other)  # RGB, as in the file


def test_two_checkpoints_side_by_side(towers, capsys):
    (towers / 'pretrainer.py').write_text(
        """
_base_ = ['./a.py']
model = dict(_delete_=True, type='mmlt.ContrastivePretrainer',
    backbone=dict(type='mmlt.OpenCLIPVision', model='mmlt-tiny-vit'),
    text=dict(type='mmlt.OpenCLIPText', model='mmlt-tiny-vit'))
"""
    )
    command = ['a.py', '--words', 'a blue plum', '-k', '99', '--against', 'towers.pth', '-o', 'c.png']
    retrieve.main([*command, '--against-config', 'pretrainer.py'])
    assert 'Picture: c.png' in capsys.readouterr().out
    assert colours('c.png') > 100
    with Image.open('c.png') as image:
        width, height = image.size
    assert width > 3 * height  # one text, 6 test pictures twice
    # The same towers in another model find the same pictures.
    args = args_of('a.py')
    for a, b in zip(found('a.py', 'towers.pth', args), found('pretrainer.py', 'towers.pth', args)):
        assert [s for _, s in a] == pytest.approx([s for _, s in b], abs=1e-6)
    with pytest.raises(SystemExit, match=r"'pretrainer\.py' names no pretrained weights: give a checkpoint"):
        retrieve.main(['pretrainer.py', '--words', 'x'])


def test_training_pictures_are_not_changed_at_random(towers):
    flips = '[dict(type="LoadImageFromFile"), dict(type="Resize", scale=(32, 32)), dict(type="RandomFlip", prob=0.5)]'
    Path('random.py').write_text(
        f"_base_ = ['./a.py']\ntrain_dataloader = dict(dataset=dict(pipeline={flips} + [dict(type='PackInputs')]))\n"
    )
    args = args_of('a.py', '--split', 'train')
    plain, random = found('a.py', 'towers.pth', args), found('random.py', 'towers.pth', args)
    for a, b in zip(plain, random):
        for (picture, cosine), (other, value) in zip(a, b):
            assert cosine == value
            np.testing.assert_array_equal(picture, other)


def test_vlltr_stage_one_on_digits(clip_file, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pretrained = [f'model.{part}.pretrained={clip_file}' for part in ('backbone', 'text', 'teacher')]
    models = [f'model.{part}.model=mmlt-tiny-vit' for part in ('backbone', 'text', 'teacher')]
    config = str(REPO / 'configs/vlltr/vlltr_tiny_mnist-lt_cvlp.py')
    options = ['--cfg-options', *pretrained, *models, 'stages=None', 'test_dataloader.num_workers=0']
    args = retrieve.parse_args([config, '--words', 'a round shape', '-k', '5', *options])
    ((*row,),) = found(config, 'pretrained', args)
    assert len(row) == 5
    assert [s for _, s in row] == sorted((s for _, s in row), reverse=True)
    assert all(p.shape == (32, 32, 3) and p.max() > 200 and (p[..., 0] == p[..., 2]).all() for p, _ in row)


def save_without(prefix):
    state = load_state('towers.pth')
    torch.save({'state_dict': {k: v for k, v in state.items() if not k.startswith(prefix)}}, 'part.pth')


def test_retrieval_refuses(towers):
    def refuses(sentence, *arguments):
        with pytest.raises(SystemExit, match=sentence) as stop:
            retrieve.main([*arguments, '--words', 'x'])
        assert str(stop.value).startswith('mmlt: ') and '\n' not in str(stop.value)

    save_without('head.text.')
    refuses("'part.pth' holds no text tower", 'a.py', 'part.pth')
    save_without('backbone.')
    refuses(r"'part.pth' lacks \d+ weights of this config's model, the first is 'backbone\.", 'a.py', 'part.pth')
    other = {k: v[..., :1] if v.ndim else v for k, v in load_state('towers.pth').items()}
    torch.save(other, 'other.pth')
    refuses("'other.pth' has .* of shape .*, but this config's model has", 'a.py', 'other.pth')
    Path('broken.pth').write_text('no checkpoint')
    refuses("'broken.pth' cannot be read: it is no file of weights", 'a.py', 'broken.pth')
    refuses("checkpoint 'none.pth' does not exist", 'a.py', 'none.pth')
    refuses("config 'none.py' does not exist", 'none.py')
    Path('linear.py').write_text(
        "_base_ = ['./a.py']\nval_dataloader = None\n"
        "model = dict(head=dict(_delete_=True, type='LinearClsHead', num_classes=3, in_channels=64))\n"
    )
    refuses("The model of '.*linear.py' has no text tower", 'linear.py')
    Path('no_val.py').write_text("_base_ = ['./a.py']\nval_dataloader = None\n")
    refuses("'.*no_val.py' has no val_dataloader: choose another --split", 'no_val.py', '--split', 'val')
    refuses('let it end with .png', 'a.py', '-o', 'c.txt')
    refuses("The earlier stage 'phase_a' is not finished", 'b.py')

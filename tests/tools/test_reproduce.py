"""A paper's row in one command: its config, what is missing, training or import, and the table at the end."""

import json
import re
import subprocess
from pathlib import Path

import pytest
import torch
from mmengine.config import Config

from mmlt.cli import reproduce as tool
from mmlt.engine import paper_rows
from mmlt.engine.paper_rows import FIGURES, read_figures
from mmlt.engine.requirements import data_options, data_root
from mmlt.engine.stages import plan
from mmlt.preparation.checks import DOWNLOADS, Download, _take_lists
from tests.models import test_converters as published

REPO = Path(__file__).parent.parent.parent
PAGES = [REPO / 'README.md', *sorted(REPO.glob('configs/*/README.md'))]
COLUMNS = {'overall': 'all', 'LIFT': 'all', 'LIFT with TTE': 'tta', 'all, with TTE': 'tta', **{k: k for k in FIGURES}}
# The tiny model without its pretraining, on few digits, for one epoch.
SMALL = [
    'stages.cvlp.options.stages=None',
    'stages.cvlp.options.model.backbone.pretrained=None',
    'stages.cvlp.options.model.text.pretrained=None',
    'stages.cvlp.options.model.teacher=None',
    'stages.cvlp.options.model.loss_ratio=1',
    *(
        f'{prefix}{setting}'
        for prefix in ('', 'stages.cvlp.options.')
        for setting in (
            'train_cfg.max_epochs=1',
            'train_dataloader.dataset.max_count=30',
            'val_dataloader.dataset.max_count=30',
            'test_dataloader.dataset.max_count=30',
            'train_dataloader.dataset.imbalance_ratio=10',
            'val_dataloader.dataset.imbalance_ratio=10',
            'test_dataloader.dataset.imbalance_ratio=10',
        )
    ),
]
ONE_EPOCH = ['train_cfg.max_epochs=1', 'stages.phase_a.options.train_cfg.max_epochs=1']
QUICK_GELU = ['model.backbone.quick_gelu=True', 'model.head.text.quick_gelu=True']


@pytest.fixture
def demo(two_stages, monkeypatch):
    """A two-stage method on a folder of pictures, named as ours, and a paper with figures of it."""
    folder = two_stages / 'configs' / 'demo'
    folder.mkdir(parents=True)
    (folder / 'demo_vit_pictures.py').write_text("_base_ = ['../../b.py']\n")
    (two_stages / 'configs/paper_results.yml').write_text(
        "paper:\n  - {method: demo, backbone: vit, dataset: pictures, many: '-', medium: '-', few: 30.0, all: 40.5, "
        "tta: 41.0, source: 'Table 7', log: '-'}\nmeasured: []\n"
    )
    monkeypatch.setattr(paper_rows, 'CONFIGS', two_stages / 'configs')
    return two_stages


def table_lines(out):
    return [line for line in out.splitlines() if re.match(r'│ (many|medium|few|all)', line)]


def test_training_ends_in_a_table_a_record_and_a_picture(demo, capsys):
    table = tool.main(['demo', 'vit', 'pictures', '--seed', '3', '--gpus', '1'])
    out = capsys.readouterr().out
    lines = table_lines(out)
    assert [line.split()[1] for line in lines] == list(FIGURES)
    assert re.search(r'│ +40\.5 │ +- │ +\d+\.\d │ +[+-]\d+\.\d │', lines[-1])
    assert 'paper: Table 7' in out and 'protocol standard' in out
    work = demo / 'work_dirs/demo_vit_pictures'
    report = json.loads((work / 'shot_report.json').read_text())['metrics']
    assert table['all'] == dict(
        paper=40.5, log=None, measured=None, ours=report['all'], difference=pytest.approx(report['all'] - 40.5)
    )
    assert table['many']['difference'] is None
    record = json.loads((work / 'reproduce.json').read_text())
    assert record['figures'] == table and record['arguments']['seed'] == 3
    assert record['config'] == 'configs/demo/demo_vit_pictures.py'
    assert record['versions']['torch'] == torch.__version__
    assert record['commit'] is None or re.fullmatch('[0-9a-f]{40}(-dirty)?', record['commit'])
    assert 'Record: work_dirs/demo_vit_pictures/reproduce.json' in out
    assert 'Picture of every class: work_dirs/demo_vit_pictures/shot_report.png' in out
    for stage in ('.', 'phase_a'):
        assert json.loads((work / stage / 'run.json').read_text())['config']['randomness']['seed'] == 3

    # With test-time ensembling nothing is trained again, and the paper's other figure stands beside.
    again = tool.main(['demo', 'vit', 'pictures', '--seed', '3', '--gpus', '1', '--tta'])
    assert capsys.readouterr().out.count('already finished') == 2
    assert [again[key]['paper'] for key in FIGURES] == [None, None, None, 41.0]
    assert (work / 'tta/reproduce.json').is_file()
    # A checkpoint of ours is tested as it is.
    ours = tool.main(['demo', 'vit', 'pictures', '--checkpoint', str(work / 'epoch_3.pth')])
    assert ours['all']['ours'] == pytest.approx(table['all']['ours'])
    assert (demo / 'work_dirs/demo_vit_pictures_published/reproduce.json').is_file()


@pytest.mark.slow
def test_several_processes_train_and_this_one_compares(demo, launcher_env, monkeypatch):
    for key in ('PORT', 'OMP_NUM_THREADS'):
        monkeypatch.setenv(key, launcher_env[key])
    monkeypatch.delenv('LOCAL_RANK', raising=False)
    options = [
        'train_cfg.max_epochs=1',
        'stages.phase_a.options.train_cfg.max_epochs=1',
        'train_dataloader.batch_size=2',
    ]
    table = tool.main(['demo', 'vit', 'pictures', '--gpus', '2', '--cfg-options', *options])
    assert 0 <= table['all']['ours'] <= 100
    with pytest.raises(SystemExit, match='mmlt train .* ended with the exit code 1; what is above'):
        tool.main(['demo', 'vit', 'pictures', '--gpus', '2', '--restart', 'none'])


def test_data_lie_elsewhere_or_nowhere(demo):
    elsewhere = demo / 'elsewhere'
    elsewhere.mkdir()
    with pytest.raises(
        SystemExit, match=r"^mmlt: .*elsewhere.*train\.txt' does not exist.*\(and|^mmlt: .*does not exist"
    ):
        tool.main(['demo', 'vit', 'pictures', '--gpus', '1', '--data', str(elsewhere)])
    assert not (demo / 'work_dirs').exists()
    for name in ('images', 'train.txt', 'test.txt', 'classes.txt'):
        (demo / name).rename(elsewhere / name)
    tool.main(['demo', 'vit', 'pictures', '--gpus', '1', '--data', 'elsewhere', '--cfg-options', *ONE_EPOCH])
    record = json.loads((demo / 'work_dirs/demo_vit_pictures/phase_a/run.json').read_text())
    assert record['config']['train_dataloader']['dataset']['data_root'] == 'elsewhere'


def test_a_test_needs_no_training_pictures(demo, monkeypatch):
    def read(download, root, contents):
        _take_lists(contents, download, str(demo / root), {split: f'{split}.txt' for split in download.images})
        contents.folders = {split: str(demo / 'images') for split in contents.splits}

    monkeypatch.setitem(DOWNLOADS, 'pictures', Download('Fruit', 3, dict(train=10, test=6), None, read))
    arguments = ['demo', 'vit', 'pictures', '--gpus', '1']
    tool.main([*arguments, '--cfg-options', *ONE_EPOCH])
    (demo / 'images/apple/0.png').unlink()
    tested = [*arguments, '--checkpoint', 'work_dirs/demo_vit_pictures/epoch_1.pth']
    tool.main(tested)
    with pytest.raises(SystemExit, match=r'Fruit, train: 1 of the 10 listed pictures are not in .*apple/0\.png'):
        tool.main(arguments)
    (demo / 'images/plum/1.png').unlink()
    with pytest.raises(SystemExit, match=r'Fruit, test: 1 of the 6 listed pictures are not in .*plum/1\.png'):
        tool.main(tested)


def test_vlltr_on_embedded_data(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    table = tool.main(['vlltr', 'tiny', 'mnist-lt', '--gpus', '1', '--cfg-options', *SMALL])
    out = capsys.readouterr().out
    assert 'measured by us' in out and len(table_lines(out)) == 4
    assert [table[key]['paper'] for key in FIGURES] == [None] * 4
    reference = read_figures()['measured']['vlltr', 'tiny', 'mnist-lt']
    assert table['all']['measured'] == reference['all']
    assert table['all']['difference'] == pytest.approx(table['all']['ours'] - reference['all'])
    with pytest.raises(SystemExit, match='come with a package.*leave out --data'):
        tool.main(['vlltr', 'tiny', 'mnist-lt', '--data', 'data/mnist'])


def test_dry_run_in_an_empty_folder(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'nothing').mkdir()
    arguments = ['vlltr', 'rn50', 'imagenet-lt', '--dry-run', '--gpus', '8']
    monkeypatch.setattr('mmlt.engine.requirements.is_cached', lambda *args: False)
    missing = tool.main([*arguments, '--data', 'nothing', '--step-time', '0.4', '0.1'])
    out = capsys.readouterr().out
    for what in ('ImageNet_LT_train.txt', 'ImageNet_LT_test.txt', 'no folder of pictures', 'nothing/wiki', "'openai'"):
        assert sum(what in sentence for sentence in missing) == 1
    assert all(f'- {sentence}' in out for sentence in missing)
    # 115,846 images: 56 steps of 2,048, then 113 of 1,024, for 50 epochs each
    assert '256 x 8 = 2,048' in out and '56 x 50' in out and '113 x 50' in out
    assert '2.49' in out and '1.26' in out and '3.74 GPU hours in all' in out
    assert 'dist_train.sh' in out and '77.8 / 67.0 / 50.8 / 70.1' in out
    assert not (tmp_path / 'work_dirs').exists()

    missing = tool.main([*arguments[:-1], '1'])
    assert any("folder 'data/imagenet/' does not exist" in sentence for sentence in missing)
    assert 'is for a batch of 2,048, not 256: take --gpus 8, or --auto-scale-lr' in capsys.readouterr().out
    tool.main([*arguments[:-1], '1', '--auto-scale-lr'])
    assert 'take --gpus' not in capsys.readouterr().out
    tool.main([*arguments[:-1], '1', '--cfg-options', 'optim_wrapper.accumulative_counts=8'])
    assert capsys.readouterr().out.count('take --gpus') == 1
    missing = tool.main([*arguments, '--checkpoint', 'none.pth'])
    assert missing[-1] == "The checkpoint 'none.pth' does not exist."
    assert 'mmlt import vlltr none.pth' in capsys.readouterr().out
    with pytest.raises(SystemExit, match='--step-time is 1.0 2.0 3.0: give one number'):
        tool.main([*arguments, '--step-time', '1', '2', '3'])
    with pytest.raises(SystemExit, match="^mmlt: The folder 'data/imagenet/' does not exist.*by --data"):
        tool.main(arguments[:3])


@pytest.mark.parametrize(
    'name, options',
    [
        (('vlltr', 'tiny', 'mnist-lt'), SMALL),
        (('more', 'tiny', 'mnist-lt'), ['stages=None', 'model.classifier.backbone.pretrained=None']),
    ],
)
@pytest.mark.slow
def test_a_step_is_measured(tmp_path, monkeypatch, capsys, name, options):
    monkeypatch.chdir(tmp_path)
    assert tool.main([*name, '--dry-run', '--measure', '--gpus', '1', '--cfg-options', *options]) == []
    out = capsys.readouterr().out
    assert "a CPU's time" in out or 'measured on one' in out
    assert re.search(r'\d [CG]PU hours in all', out) and 'Nothing is missing.' in out


@pytest.mark.slow
def test_cached_features_take_the_tower_once(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    options = ['default_hooks.feature_cache.views=1', 'train_cfg.max_epochs=10']
    arguments = ['ballad', 'tiny', 'mnist-lt', '--dry-run', '--gpus', '1', '--cfg-options', *options]
    tool.main([*arguments, '--step-time', '3600'])
    out = capsys.readouterr().out
    assert 'the image tower runs in 1 of 10 epochs' in out and re.search(r'15 x 10 │ +3,600 │ +15 │', out)


@pytest.mark.parametrize(
    'name, sentence',
    [
        (('vl-ltr', 'rn50', 'imagenet-lt'), "the method 'vl-ltr'. Near it: vlltr.*There are .*ballad.*zeroshot"),
        (('ballad', 'rn-50', 'imagenet-lt'), "of ballad with the backbone 'rn-50'. Near it: rn50.*rn101"),
        (('ballad', 'ViT-B/16', 'ImageNet'), "of ballad vit-b16 with the data set 'imagenet'. Near it: imagenet-lt"),
        (('vlltr', 'rn50', 'imagenet-lt_cvlp'), 'There are .*inat18'),
    ],
)
def test_unknown_names_get_near_ones(name, sentence):
    with pytest.raises(SystemExit, match=f'^mmlt: .*{sentence}') as stop:
        tool.main(list(name))
    assert '\n' not in str(stop.value)


def test_published_ballad(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    published.ballad_checkpoint('final.pth', 'rn')
    name = ['ballad', 'tiny', 'mnist-lt']
    table = tool.main([*name, '--checkpoint', 'final.pth', '--cfg-options', *QUICK_GELU])
    assert len(table_lines(capsys.readouterr().out)) == 4 and 0 <= table['all']['ours'] <= 100
    work = tmp_path / 'work_dirs/ballad_tiny_mnist-lt_published'
    assert (work / 'imported.pth').is_file() and (work / 'reproduce.json').is_file()
    with pytest.raises(
        SystemExit, match="'final.pth' is a checkpoint of BALLAD, which vlltr_tiny_mnist-lt cannot take"
    ):
        tool.main(['vlltr', *name[1:], '--checkpoint', 'final.pth'])


def test_published_vlltr(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    published.recognition_checkpoint('checkpoint.pth', 'rn', counts=[4, 1] * 5)
    name = ['vlltr', 'tiny', 'mnist-lt']
    table = tool.main([*name, '--checkpoint', 'checkpoint.pth', '--cfg-options', QUICK_GELU[0]])
    assert len(table_lines(capsys.readouterr().out)) == 4 and 0 <= table['all']['ours'] <= 100
    published.pretraining_checkpoint('first.pth', 'rn')
    torch.save(dict(weights=torch.ones(1)), 'other.pth')
    for file, sentence in {
        'first.pth': "'first.pth' is a checkpoint of VL-LTR stage 1.*has no classifier to test",
        'other.pth': "'other.pth' is a checkpoint of neither",
        'none.pth': "'none.pth' does not exist",
    }.items():
        with pytest.raises(SystemExit, match=sentence) as stop:
            tool.main([*name, '--checkpoint', file])
        assert '\n' not in str(stop.value)
    with pytest.raises(SystemExit, match='VL-LTR stage 2.*mmlt reproduce vlltr tiny mnist-lt'):
        tool.main(['ballad', *name[1:], '--checkpoint', 'checkpoint.pth'])


def readme_rows():
    """(page, whether it is a paper's, name of the config, its figures) of every row with one config."""
    for page in PAGES:
        header, section = None, ''
        for line in page.read_text(encoding='utf-8').splitlines():
            if line.startswith('#'):
                section = line
            if not line.startswith('|'):
                header = None
                continue
            cells = [cell.strip() for cell in line.strip('|').split('|')]
            if header is None:
                header = cells
            links = re.findall(r'\]\(([^)]+\.py)\)', line)
            figures = {
                COLUMNS[head]: float(cell.split()[0].strip('*'))
                for head, cell in zip(header, cells)
                if head in COLUMNS and re.match(r'\**\d', cell)
            }
            if len(links) == 1 and 'all' in figures:
                paper = 'paper' in section or 'paper' in header[0]
                yield page, paper, tuple(Path(links[0]).stem.split('_', 2)), figures


def test_readmes_and_the_data_file_agree():
    known, seen = read_figures(), set()
    for page, paper, name, figures in readme_rows():
        # Tables of other pages are series of their own.
        if not paper and page != PAGES[0]:
            continue
        entry = known['paper' if paper else 'measured'].get(name)
        assert entry, f'{page}: {" ".join(name)} is missing in configs/paper_results.yml'
        own = {key: entry[key] for key in COLUMNS.values() if entry.get(key, '-') != '-'}
        # The first page leaves some columns out.
        same = own == figures if page != PAGES[0] else figures.items() <= own.items()
        assert same, f'{page}: {" ".join(name)} has {figures}, configs/paper_results.yml {own}'
        seen.add((paper, name))
    assert len(seen) > 35 and any(not paper for paper, _ in seen)


@pytest.mark.parametrize('name', sorted({name for part in read_figures().values() for name in part}), ids='_'.join)
def test_figures_are_of_configs_that_exist(name):
    row = paper_rows.find_row(*name)
    assert any(row.paper.values()) or any(row.measured.values())
    assert bool(row.source) == any(row.paper.values())


def test_all_stages_with_the_same_data_move():
    staged = [p for p in sorted(REPO.glob('configs/*/*.py')) if 'stages = dict(' in p.read_text()]
    for path in staged:
        cfg = Config.fromfile(path)
        if path.parent.name == 'clip' or data_root(cfg) is None:
            continue
        cfg.work_dir = 'w'
        stages = plan(cfg)
        assert all(stage.name in (cfg.get('stages') or {}) for stage in stages[:-1]), path
        assert len(data_options(stages, 'x')) >= len(stages)


def test_a_dry_run_counts_images_and_views_by_name(tmp_path, monkeypatch, capsys):
    """BALLAD's phase B draws as many as 'images', and caches as many views as 'epochs'."""
    monkeypatch.chdir(tmp_path)
    tool.main(['ballad', 'rn50', 'imagenet-lt', '--dry-run'])
    assert '1,810 x 10' in capsys.readouterr().out


def test_commit_is_that_of_the_package(tmp_path, monkeypatch):
    def git(*arguments):
        identity = ['-c', 'user.name=a', '-c', 'user.email=a@b', '-c', 'commit.gpgsign=false']
        return subprocess.run(['git', *identity, *arguments], cwd=tmp_path, check=True, capture_output=True, text=True)

    package = tmp_path / 'mmlt'
    (package / 'configs').mkdir(parents=True)
    monkeypatch.setattr(paper_rows, 'CONFIGS', package / 'configs')
    for file in (package / '__init__.py', package / 'a.py', tmp_path / 'README.md'):
        file.write_text('')
    assert paper_rows.commit() is None
    git('init', '-q')
    (tmp_path / '.gitignore').write_text('*.pyc\n')
    git('add', 'README.md')
    git('commit', '-qm', 'x')
    assert paper_rows.commit() is None  # installed inside a repository that is another's
    git('add', '.')
    git('commit', '-qm', 'x')
    head = git('rev-parse', 'HEAD').stdout.strip()
    (tmp_path / 'README.md').write_text('a page that a run writes')
    (package / 'a.pyc').write_text('')
    assert paper_rows.commit() == head
    (package / 'configs/new.py').write_text('')
    assert paper_rows.commit() == f'{head}-dirty'

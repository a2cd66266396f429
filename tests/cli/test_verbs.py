"""The command mmlt: verbs, their help and examples, configs by name."""

import importlib
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from mmengine.config import Config

from mmlt import InputError, cli
from mmlt.cli import VERBS, bench
from mmlt.cli.work import doctor
from mmlt.engine.configs import CONFIGS, config_names, find_config, full_name, read_config, take_options
from mmlt.options import RunOptions
from mmlt.version import __version__

EXAMPLES = [
    (verb, line.strip())
    for verb, (module, _) in VERBS.items()
    for line in re.findall(
        r'^    (mmlt .*?)(?:  .*)?$',
        re.sub(r'\\\n\s*', '', importlib.import_module(f'mmlt.cli.{module}').__doc__),
        re.M,
    )
]


def test_every_verb_has_an_example():
    assert {verb for verb, _ in EXAMPLES} == set(VERBS)


@pytest.mark.parametrize(('verb', 'line'), EXAMPLES, ids=[line for _, line in EXAMPLES])
def test_examples_are_understood(verb, line, capsys):
    words = shlex.split(line)
    assert words[1] in VERBS
    if words[1] in ('import', 'bench'):
        return  # they hand on what is checked below
    module = importlib.import_module(f'mmlt.cli.{VERBS[words[1]][0]}')
    try:
        parse = getattr(module, 'parse_args', None)
        args = parse(words[2:]) if parse else module.main(words[2:])
    except SystemExit:
        pytest.fail(capsys.readouterr().err)
    for name in ('config', 'configs'):
        value = getattr(args, name, None)
        for each in value if isinstance(value, list) else [value]:
            if isinstance(each, str) and not each.startswith('CONFIG') and '/' not in each:
                assert Path(find_config(each)).is_file()


@pytest.mark.parametrize('verb', VERBS)
def test_help(verb, capsys):
    try:
        cli.main([verb, '--help'])
    except SystemExit as e:
        assert not e.code
    said = capsys.readouterr().out
    assert f'mmlt {verb}' in said


def test_overview_and_mistakes(capsys):
    assert cli.main([]) == 2 and cli.main(['--help']) == 0 and cli.main(['--version']) == 0
    said = capsys.readouterr().out
    assert all(what in said for _, what in VERBS.values()) and said.endswith(f'{__version__}\n')
    assert cli.main(['trian', 'x']) == 2
    assert "there is no verb 'trian', perhaps 'train'" in capsys.readouterr().err


def test_arguments_of_the_command_line(monkeypatch, capsys):
    monkeypatch.setattr(sys, 'argv', ['mmlt', 'config', 'printed'])
    cli.main()
    assert capsys.readouterr().out.split() == [
        'clip:',
        'clip_tiny-vit_printed-characters',
        'clip_tiny_printed-characters',
    ]


def test_the_module_runs_as_the_command(tmp_path, repo):
    done = subprocess.run(
        [sys.executable, '-m', 'mmlt', 'config', 'nothing-like-it', '--copy', 'x.py'],
        cwd=tmp_path,
        env={'PYTHONPATH': str(repo), 'PATH': ''},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1 and done.stderr.startswith("mmlt: The config 'nothing-like-it' does not exist")


@pytest.mark.parametrize('arguments', [[], ['config', 'vlltr_tiny_mnist-lt']])
def test_who_reads_may_stop(repo, arguments):
    """As ``mmlt | head`` does: no traceback."""
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [sys.executable, '-W', 'ignore', '-m', 'mmlt', *arguments],
        env={**os.environ, 'PYTHONPATH': str(repo)},
        stdout=writing,
        stderr=subprocess.PIPE,
        text=True,
    )
    os.close(writing)
    assert done.returncode == 141 and not done.stderr


def test_a_broken_pipe_of_something_else_is_not_hidden(monkeypatch):
    monkeypatch.setattr(cli, '_run', lambda _: (_ for _ in ()).throw(BrokenPipeError()))
    with pytest.raises(BrokenPipeError):
        cli.main(['train'])


# Configs by name


def test_names_from_any_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    expected = str(CONFIGS / 'vlltr' / 'vlltr_tiny_mnist-lt.py')
    for name in ('vlltr_tiny_mnist-lt', 'vlltr_tiny_mnist-lt.py', 'configs/vlltr/vlltr_tiny_mnist-lt.py'):
        assert find_config(name) == expected
    assert read_config('vlltr_tiny_mnist-lt').filename == expected
    Path('vlltr_tiny_mnist-lt.py').write_text('model = dict(type="own")\n')  # a file of one's own comes first
    assert find_config('vlltr_tiny_mnist-lt.py') == 'vlltr_tiny_mnist-lt.py'
    for wrong in ('vltr_tiny_mnist-lt', 'configs/vlltr/vltr_tiny_mnist-lt.py'):
        with pytest.raises(InputError, match='does not exist: .* perhaps vlltr_tiny_mnist-lt'):
            find_config(wrong)
    with pytest.raises(InputError, match="own; 'mmlt config' lists"):
        find_config('zzz')


def test_names_with_the_training_part(capsys):
    """MMPretrain's '8xb64': taken where the product is the batch that the learning rates are for."""
    plain = str(CONFIGS / 'vlltr' / 'vlltr_vit-b16_imagenet-lt.py')
    for name in ('vlltr_vit-b16_8xb128_imagenet-lt', 'configs/vlltr/vlltr_vit-b16_16xb64_imagenet-lt.py'):
        assert find_config(name) == plain
    assert find_config('vlltr_rn50_imagenet-lt_8xb256_cvlp').endswith('vlltr_rn50_imagenet-lt_cvlp.py')
    with pytest.raises(InputError, match=r"of 512, .* 8 GPU\(s\) of 128: .* 'vlltr_vit-b16_8xb128_imagenet-lt'"):
        find_config('vlltr_vit-b16_8xb64_imagenet-lt')
    with pytest.raises(InputError, match='For other batches: mmlt train vlltr_tiny_mnist-lt --auto-scale-lr'):
        find_config('vlltr_tiny_8xb64_mnist-lt')
    with pytest.raises(InputError, match="trains nothing; its name is 'zeroshot_rn50_imagenet-lt'"):
        find_config('zeroshot_rn50_8xb64_imagenet-lt')
    with pytest.raises(InputError, match='does not exist: .* perhaps vlltr_tiny_mnist-lt'):
        find_config('vltr_tiny_8xb64_mnist-lt')
    cli.main(['config', 'ce_tiny_1xb64_mnist-lt'])  # where no batch is said for the learning rates, its own
    assert capsys.readouterr().out.startswith('# ce_tiny_1xb64_mnist-lt, ')
    cfg = read_config('vlltr_vit-b16_8xb128_imagenet-lt')
    assert full_name(cfg) == 'vlltr_vit-b16_8xb128_imagenet-lt'
    take_options(cfg, RunOptions('x'))
    assert cfg.work_dir == str(Path('work_dirs', 'vlltr_vit-b16_imagenet-lt'))  # one folder by both names


def test_no_two_configs_have_one_name():
    files = [p for p in CONFIGS.glob('*/*.py') if p.parent.name != '_base_']
    assert len(config_names()) == len(files) > 80


def test_copies_build_on_the_original(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path('sub').mkdir()
    cli.main(['config', 'ce_tiny_mnist-lt', '--copy', 'sub/my.py'])
    assert 'mmlt train sub/my.py' in capsys.readouterr().out
    assert Config.fromfile('sub/my.py').model == read_config('ce_tiny_mnist-lt').model
    for arguments, why in (
        (['--copy', 'sub/my.py'], 'exists: give another name, or --overwrite'),
        (['--copy', 'my.txt'], 'ends with .py'),
    ):
        with pytest.raises(SystemExit, match=why):
            cli.main(['config', 'ce_tiny_mnist-lt', *arguments])
    for arguments, why in (
        ([], '--copy needs a config to build on: mmlt config NAME --copy my.py'),
        (['lift'], "'lift' does not exist: .* perhaps lift"),
        (['LIFT_tiny-vit_mnist-lt'], 'perhaps lift_tiny-vit_mnist-lt'),
    ):
        with pytest.raises(SystemExit, match=why):
            cli.main(['config', *arguments, '--copy', 'my.py'])
    cli.main(['config', 'ce_tiny_mnist-lt', '--cfg-options', 'train_cfg.max_epochs=77'])
    assert 'max_epochs=77' in capsys.readouterr().out


# Doctor, benchmarks, models


def test_doctor(capsys, monkeypatch):
    assert cli.main(['doctor']) == 0
    said = capsys.readouterr().out
    assert [line.split()[0] for line in said.splitlines()[:6]] == [
        'mmlt', 'stack', 'device', 'precision', 'data', 'weights',
    ]  # fmt: skip
    assert len(said.splitlines()) <= 12 and 'torch' in said
    monkeypatch.setattr(doctor.importlib.util, 'find_spec', lambda name: None)
    monkeypatch.setattr(doctor, 'clash', lambda: 'Two packages have overwritten each other.')
    cli.main(['doctor'])
    said = capsys.readouterr().out
    monkeypatch.setattr(doctor, 'is_cached', lambda *weights: weights != ('ViT-B-16', 'openai'))
    assert any('mmlt.fit' in problem and 'ViT-B-16/openai' in problem for problem in doctor.problems())
    monkeypatch.setattr(doctor, 'is_cached', lambda *weights: True)
    assert not any('mmlt.fit' in problem for problem in doctor.problems())
    assert '- Two packages' in said and 'MNIST-LT' in said and "pip install 'mmlt[demo]'" in said


def test_benchmarks_are_listed_and_run(capsys, monkeypatch):
    cli.main(['bench'])
    said = capsys.readouterr().out
    assert all(name in said for name in bench.benchmarks()) and len(bench.benchmarks()) > 10
    with pytest.raises(SystemExit, match="no benchmark 'samper', perhaps 'sampler'"):
        cli.main(['bench', 'samper'])
    with pytest.raises(SystemExit):
        cli.main(['bench', 'ccl', '--help'])
    assert 'mmlt bench ccl' in capsys.readouterr().out


def test_models(capsys):
    cli.main(['models', 'lift_vit-b16_imagenet'])
    assert 'lift_vit-b16_imagenet-lt' in capsys.readouterr().out
    with pytest.raises(SystemExit, match="No model has 'xyz'"):
        cli.main(['models', 'xyz'])


def test_importers(capsys):
    assert cli.main(['import']) == 0 and 'mmlt import vlltr' in capsys.readouterr().out
    with pytest.raises(SystemExit, match="no importer for 'lift'; there are ballad, vlltr"):
        cli.main(['import', 'lift'])
    with pytest.raises(SystemExit):
        cli.main(['import', 'ballad', '--help'])
    assert 'mmlt import ballad' in capsys.readouterr().out

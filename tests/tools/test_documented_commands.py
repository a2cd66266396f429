"""What the documentation says to type is what the tools understand."""

import importlib.util
import re
import shlex
import sys
from pathlib import Path

import pytest

from mmlt import cli
from mmlt.engine.configs import find_config
from tests import stubs

REPO = Path(__file__).parent.parent.parent
PAGES = [REPO / 'README.md', REPO / 'CONTRIBUTING.md', *REPO.glob('docs/*.md'), *REPO.glob('configs/*/README.md')]
COMMANDS = sorted(
    {
        (str(page.relative_to(REPO)), line.strip())
        for page in PAGES
        for line in page.read_text().splitlines()
        if re.match(r'\s*python tools/\S+\.py ', line)
    }
)


@pytest.mark.parametrize('page', sorted({page for page, _ in COMMANDS}))
def test_commands_are_understood(page, monkeypatch, capsys):
    monkeypatch.setenv('LOCAL_RANK', '0')
    for line in (line for own, line in COMMANDS if own == page):
        _, path, *arguments = shlex.split(line, comments=True)
        tool = stubs.tool(path.removeprefix('tools/').removesuffix('.py'))
        monkeypatch.setattr(sys, 'argv', [path, *arguments])  # benchmarks read it themselves
        try:
            args = tool.parse_args(*([arguments] if 'benchmarks' not in path else []))
        except SystemExit:
            pytest.fail(f'{line}: {capsys.readouterr().err.splitlines()[-1]}')
        for value in vars(args).values():
            if isinstance(value, str) and value.startswith('configs/'):
                assert (REPO / value).is_file(), line


@pytest.mark.parametrize('path', sorted(stubs.TOOLS.rglob('*.py')), ids=lambda path: path.stem)
def test_tools_only_call(path):
    assert callable(stubs.tool(path.relative_to(stubs.TOOLS).with_suffix('').as_posix()).main)


def test_all_pages_have_commands():
    assert len(COMMANDS) > 150 and {'README.md', 'docs/datasets.md', 'docs/deploy.md', 'docs/scaling.md'} <= {
        page for page, _ in COMMANDS
    }


VERBS = sorted(
    {
        (page.relative_to(REPO).as_posix(), match[0])
        for page in PAGES
        for block in re.findall(r'```shell\n(.*?)```', page.read_text(), re.S)
        for match in re.finditer(r'^mmlt \S.*$', block, re.M)
    }
)


@pytest.mark.parametrize(('page', 'line'), VERBS, ids=[line for _, line in VERBS])
def test_verbs_are_understood(page, line, capsys):
    _, verb, *arguments = shlex.split(line, comments=True)
    module = importlib.import_module(f'mmlt.cli.{cli.VERBS[verb][0]}')
    try:
        args = module.parse_args(arguments)
    except SystemExit:
        pytest.fail(f'{line}: {capsys.readouterr().err.splitlines()[-1]}')
    for name in [getattr(args, 'config', None), *(getattr(args, 'configs', None) or ())]:
        assert name is None or Path(find_config(name)).is_file(), line

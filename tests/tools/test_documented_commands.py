"""What the documentation says to type is what the tools understand."""

import importlib
import re
import shlex
import sys
from pathlib import Path

import pytest

from mmlt import cli
from mmlt.cli import import_
from mmlt.engine.configs import find_config
from tests import stubs

REPO = Path(__file__).parent.parent.parent
PAGES = [REPO / 'README.md', REPO / 'CONTRIBUTING.md', *REPO.glob('docs/*.md'), *REPO.glob('configs/*/README.md')]
COMMANDS = sorted(
    {
        (page.relative_to(REPO).as_posix(), line.strip())
        for page in PAGES
        for block in re.findall(r'```shell\n(.*?)```', page.read_text(), re.S)
        for line in block.splitlines()
        if re.match(r'\s*(python tools/\S+\.py|mmlt \S+)( |$)', line)
    }
)
# Of these tools docs/ names the verb, which needs no checkout.
PAGES_OF_VERBS = ('datasets', 'results', 'posthoc', 'deploy', 'merging', 'reproduce')


def parser_of(line):
    """The module that parses a line, and its arguments."""
    words = shlex.split(line, comments=True)
    if words[0] == 'python':
        return stubs.tool(words[1].removeprefix('tools/').removesuffix('.py')), words[2:]
    _, verb, *arguments = words
    if verb == 'bench':
        return importlib.import_module(f'mmlt.benchmarks.{arguments[0]}'), arguments[1:]
    if verb == 'import':
        return import_.IMPORTERS[arguments[0]], arguments[1:]
    return importlib.import_module(f'mmlt.cli.{cli.VERBS[verb][0]}'), arguments


@pytest.mark.parametrize('page', sorted({page for page, _ in COMMANDS}))
def test_commands_are_understood(page, monkeypatch, capsys):
    monkeypatch.setenv('LOCAL_RANK', '0')
    for line in (line for own, line in COMMANDS if own == page):
        module, arguments = parser_of(line)
        benchmark = '.benchmarks.' in module.__name__
        monkeypatch.setattr(sys, 'argv', [line, *arguments])  # benchmarks read it themselves
        try:
            args = module.parse_args(*([] if benchmark else [arguments]))
        except SystemExit:
            pytest.fail(f'{line}: {capsys.readouterr().err.splitlines()[-1]}')
        given = vars(args)
        for value in (given.get('config'), *(given.get('configs') or ()), *given.values()):
            if isinstance(value, str) and value.startswith('configs/'):
                assert (REPO / value).is_file(), line
        for name in (given.get('config'), *(given.get('configs') or ())):
            if name and line.startswith('mmlt') and not name.startswith('data/'):
                assert Path(find_config(name)).is_file(), line


def test_pages_and_sentences_name_verbs():
    """``tools/`` is only in a checkout, and a user of the package has none."""
    of_modules = {module for module, _ in cli.VERBS.values()} | {'import_ballad', 'import_vlltr'}
    tools = {p.relative_to(REPO).as_posix() for p in stubs.TOOLS.rglob('*.py') if 'benchmarks' not in p.parts}
    named = {tool for tool in tools if stubs.tool(tool[6:-3]).__name__.rpartition('.')[2] in of_modules}
    files = [REPO / f'docs/{name}.md' for name in PAGES_OF_VERBS]
    files += [p for p in (REPO / 'mmlt').rglob('*.py') if 'benchmarks' not in p.parts]
    for file in files:
        text = file.read_text().replace("MMPretrain's tools/", '')
        assert not [tool for tool in named if tool in text], file


@pytest.mark.parametrize('path', sorted(stubs.TOOLS.rglob('*.py')), ids=lambda path: path.stem)
def test_tools_only_call(path):
    assert callable(stubs.tool(path.relative_to(stubs.TOOLS).with_suffix('').as_posix()).main)


def test_all_pages_have_commands():
    assert len(COMMANDS) > 150 and {'README.md', 'docs/datasets.md', 'docs/deploy.md', 'docs/scaling.md'} <= {
        page for page, _ in COMMANDS
    }

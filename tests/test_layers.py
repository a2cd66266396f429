"""The house: which folder may know which."""

import ast
from pathlib import Path

import pytest

import mmlt

ROOT = Path(mmlt.__file__).parent
# From below upwards: a module imports of its own folder, and of those below. All of mmlt is as high as its apis.
FLOORS = (
    ('choices', 'errors', 'options', 'registry', 'version', 'stack'),
    ('utils',),
    ('checkpoints',),
    ('evaluation',),
    ('datasets', 'models'),
    ('visualization',),
    ('preparation',),
    ('engine',),
    ('apis',),
    ('cli',),
    ('benchmarks',),
    ('__main__',),
)
FLOOR = {name: i for i, names in enumerate(FLOORS) for name in names}


def modules() -> dict[str, Path]:
    """Files by the names of their modules."""
    files = {p: '.'.join(p.relative_to(ROOT.parent).with_suffix('').parts) for p in sorted(ROOT.rglob('*.py'))}
    files = {p: name for p, name in files.items() if not name.startswith('mmlt.configs.')}
    return {name.removesuffix('.__init__'): path for path, name in files.items()}


def imports(name: str, path: Path, known: dict[str, Path]) -> set[str]:
    """Modules of the project that a module imports, wherever in it."""
    package = name if path.name == '__init__.py' else name.rpartition('.')[0]
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding='utf-8'))):
        if isinstance(node, ast.Import):
            targets = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = '.'.join([*package.split('.')[: len(package.split('.')) - node.level + 1]] if node.level else [])
            base = '.'.join(part for part in (base, node.module) if part)
            targets = [f'{base}.{alias.name}' for alias in node.names]
        else:
            continue
        for target in targets:
            while target and target not in known:
                target = target.rpartition('.')[0]
            found.add(target)
    return found - {'', name}


@pytest.fixture(scope='module')
def graph() -> dict[str, set[str]]:
    known = modules()
    return {name: imports(name, path, known) for name, path in known.items()}


def folder(module: str) -> str:
    return module.split('.')[1] if '.' in module else ''


def test_no_arrow_upwards_or_aside(graph):
    assert len(graph) > 100 and {folder(m) for m in graph} - {''} <= set(FLOOR)
    wrong = [
        f'{module} imports {other}'
        for module, others in graph.items()
        for other in others
        if folder(module) and folder(module) != folder(other)
        if (FLOOR[folder(other)] if folder(other) else FLOOR['apis']) >= FLOOR[folder(module)]
    ]
    assert not wrong


def test_no_circle(graph):
    """A package and its own modules apart, which import each other's neighbours through its names."""
    edges = {m: {o for o in others if not m.startswith(f'{o}.')} for m, others in graph.items()}
    done, way = set(), []

    def visit(module):
        assert module not in way, ' -> '.join([*way[way.index(module) :], module])
        if module in done:
            return
        way.append(module)
        for other in sorted(edges[module]):
            visit(other)
        done.add(way.pop())

    for module in sorted(edges):
        visit(module)


def test_one_name_means_one_thing():
    """No two public functions or classes of one name, but what every verb and benchmark has."""
    places = {}
    for module, path in modules().items():
        for node in ast.parse(path.read_text(encoding='utf-8')).body:
            if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and not node.name.startswith('_'):
                places.setdefault(node.name, []).append(module)
    twice = {name: found for name, found in places.items() if len(found) > 1 and name not in ('main', 'parse_args')}
    assert not twice


def test_files_and_functions_stay_short():
    """400 lines a file; 40 lines of code a function, without its docstring, blank lines and comments."""
    long = []
    for name, path in modules().items():
        lines = path.read_text(encoding='utf-8').splitlines()
        if len(lines) > 400:
            long.append(f'{name}: {len(lines)} lines')
        for node in ast.walk(ast.parse('\n'.join(lines))):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                doc = node.body[0] if ast.get_docstring(node) else None
                skipped = range(doc.lineno, doc.end_lineno + 1) if doc else ()
                code = [
                    i
                    for i in range(node.lineno, node.end_lineno + 1)
                    if i not in skipped and lines[i - 1].strip() and not lines[i - 1].strip().startswith('#')
                ]
                if len(code) > 40:
                    long.append(f'{name}.{node.name}: {len(code)} lines of code')
    assert not long

"""The page in a real browser: it sorts, filters, asks for nothing, and runs nothing that a run is called."""

import json
import re
import shutil
import subprocess
from html.parser import HTMLParser

import pytest

from mmlt.visualization import named_runs
from mmlt.visualization.html_report import collect_runs, write_page
from mmlt.visualization.html_report.page import class_table

BROWSER = shutil.which('chromium') or shutil.which('chromium-browser') or shutil.which('google-chrome')
pytestmark = pytest.mark.skipif(BROWSER is None, reason='there is no chromium on PATH: apt-get install chromium')

EVIL = [
    '<script>document.title = "boom"</script>',
    '</script><script>document.title = "boom"</script>',
    '<img src=x onerror="document.title = 1">',
    '"quotes" & \'more\'',
    '梨子',
    'כלב',
]


class Root(HTMLParser):
    """The attributes of the root, the title, and cells of the drawn tables."""

    def __init__(self, text):
        super().__init__()
        self.attributes, self.title, self.cells, self._tag = {}, '', [], ''
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self._tag = tag
        if tag == 'html':
            self.attributes = dict(attrs)
        if tag == 'td':
            self.cells.append('')

    def handle_endtag(self, tag):
        self._tag = ''

    def handle_data(self, data):
        if self._tag == 'title' and not self.title:
            self.title = data
        if self._tag == 'td':
            self.cells[-1] += data


def open_page(path, fragment='') -> Root:
    """What the page is after its script has run; no name can be resolved, so nothing can be loaded."""
    command = [
        BROWSER, '--headless', '--no-sandbox', '--disable-gpu', '--host-resolver-rules=MAP * ~NOTFOUND',
        f'--user-data-dir={path.parent}/profile', '--virtual-time-budget=5000', '--dump-dom',
        f'file://{path}{fragment}',
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    return Root(done.stdout)


@pytest.fixture(scope='module')
def tested(tmp_path_factory, make_run):
    """The table of a page with two runs, and what its own test wrote down."""
    folder = tmp_path_factory.mktemp('browser')
    names = [*EVIL, *(f'class {i}' for i in range(44))]
    make_run(folder / 'a', names)
    make_run(folder / 'b', names, seed=1)
    groups = named_runs([str(folder / 'a'), str(folder / 'b')])
    runs = collect_runs(groups)
    write_page(runs, groups, folder / 'r.html')
    page = open_page(folder / 'r.html', '#selftest')
    return class_table(runs[0]), json.loads(page.attributes['data-selftest']), page


def test_headings_sort(tested):
    table, found, _ = tested
    rows = table['rows']
    assert found['start'] == [row[0] for row in rows]
    for i, column in enumerate(table['columns']):
        got = found['sorted'][column['key']]
        if column['kind'] == 'number':
            up = sorted(rows, key=lambda r: (r[i] is None, r[i] or 0))
            down = sorted(rows, key=lambda r: (r[i] is None, -(r[i] or 0)))
            assert got == {'ascending': [r[0] for r in up], 'descending': [r[0] for r in down]}, column['key']
        else:
            assert sorted(got['ascending']) == sorted(got['descending']) == sorted(found['start'])
            by_name = {r[0]: r[i] for r in rows}
            values = [by_name[name] for name in got['ascending'] if by_name[name] is not None]
            back = [by_name[name] for name in got['descending'] if by_name[name] is not None]
            assert values == back[::-1]
    numbered = [n for n in found['sorted']['class']['ascending'] if re.fullmatch(r'class \d+', n)]
    assert numbered == [f'class {i}' for i in range(44)]  # 10 behind 9


def test_filters(tested):
    table, found, _ = tested
    place = [column['key'] for column in table['columns']].index('mistake')
    last = len(table['columns']) - 1
    # The last column was sorted by before, and stays so.
    rows = sorted(table['rows'], key=lambda r: (r[last] is None, -(r[last] or 0)))
    assert len(found['text']) >= 4
    for text, got in found['text'].items():
        wanted = text.strip().lower()
        assert got == [r[0] for r in rows if wanted in r[0].lower() or wanted in (r[place] or '').lower()]
    for shot, got in found['shots'].items():
        assert got and got == [r[0] for r in rows if r[1] == shot]


def test_nothing_is_asked_for_and_nothing_runs(tested):
    _, found, page = tested
    assert found['requests'] == []
    assert page.title == 'a, b'
    assert set(EVIL) <= set(page.cells)


def test_a_thousand_classes_are_drawn_soon(tmp_path, make_run):
    make_run(tmp_path / 'big', [f'class {i}' for i in range(1000)], 50, pictures=4)
    groups = named_runs([str(tmp_path / 'big')])
    write_page(collect_runs(groups), groups, tmp_path / 'r.html')
    page = open_page(tmp_path / 'r.html', '#selftest')
    found = json.loads(page.attributes['data-selftest'])
    print(f'the first table of 1,000 classes stood after {found["firstTable"]:.0f} ms')
    assert len(found['start']) == 200  # the rest is drawn when it is asked for
    assert len(found['sorted']['figure']['ascending']) == 1000

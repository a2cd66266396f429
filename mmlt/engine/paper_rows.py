"""A row of a paper's table: its config, its figures, and ours beside them."""

from __future__ import annotations

import difflib
import json
import os.path as osp
import platform
import subprocess
import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path

import mmengine
import mmpretrain
import open_clip
import torch
import yaml
from rich.console import Console
from rich.table import Table
from rich.text import Text

import mmlt.preparation.multi_label_checks  # noqa: F401  adds VOC-LT and COCO-LT
from mmlt.checkpoints import write_text
from mmlt.engine.configs import CONFIGS
from mmlt.errors import InputError
from mmlt.evaluation.meanings import overall_meaning
from mmlt.preparation.checks import DOWNLOADS, Download
from mmlt.version import __version__
from mmlt.visualization.report import MEASURES

FIGURES = ('many', 'medium', 'few', 'all')


@dataclass
class Row:
    """A row of a paper's table, or of our own.

    Args:
        method (str): For example 'vlltr'.
        backbone (str): For example 'rn50'.
        dataset (str): For example 'imagenet-lt', with a variant's suffix.
        config (str): The config's path.
        paper (dict): The paper's figures: 'many', 'medium', 'few', 'all' in
            percent, None where it has none. Defaults to none.
        log (float, optional): The overall figure in the published code's log.
            Defaults to None.
        measured (dict): What we measured, as ``paper``. Defaults to none.
        source (str): Where the paper's figures stand. Defaults to ''.
    """

    method: str
    backbone: str
    dataset: str
    config: str
    paper: dict = field(default_factory=dict)
    log: float | None = None
    measured: dict = field(default_factory=dict)
    source: str = ''

    @property
    def name(self) -> str:
        """The config's name."""
        return Path(self.config).stem

    @property
    def download(self) -> Download | None:
        """The downloaded data set, None for another one."""
        return DOWNLOADS.get(self.dataset.split('_')[0])


def find_row(method: str, backbone: str, dataset: str, tta: bool = False) -> Row:
    """The config of a method, backbone and data set, and what is published of it.

    Args:
        method (str): For example 'vlltr'; capitals do not matter.
        backbone (str): For example 'rn50'.
        dataset (str): For example 'imagenet-lt', or with the suffix of a
            variant, 'imagenet-lt_paper'.
        tta (bool): Figures with test-time ensembling. Defaults to False.

    Returns:
        Row: With the figures that are known.

    Raises:
        InputError: There is no such config; near names and all there are. mmlt
            was installed without its repository.
    """
    if not CONFIGS.is_dir():
        raise InputError(f"'{CONFIGS}' does not exist: it lies in mmlt's repository, run this from there.")
    found: dict[tuple[str, ...], Path] = {}
    for path in sorted(CONFIGS.glob('*/*.py')):
        # CLIP's pretraining and VL-LTR's stage 1 are no classifiers.
        if path.parent.name not in ('_base_', 'clip') and not path.stem.endswith('_cvlp'):
            found[tuple(path.stem.split('_', 2))] = path
    method, backbone, dataset = (name.lower().replace('/', '') for name in (method, backbone, dataset))
    asked = method, backbone, dataset
    kinds = ('method', 'backbone', 'data set')
    for i, kind in enumerate(kinds):
        known = sorted({names[i] for names in found if names[:i] == asked[:i]})
        if asked[i] not in known:
            near = difflib.get_close_matches(asked[i], known, 3)
            of = f' of {" ".join(asked[:i])}' if i else ''
            hint = f' Near it: {", ".join(near)}.' if near else ''
            raise InputError(
                f"There is no config{of} with the {kind} '{asked[i]}'.{hint} There are {', '.join(known)}."
            )
    path = found[asked]
    row = Row(*asked, config=osp.relpath(path) if path.is_relative_to(Path.cwd()) else str(path))
    published = read_figures()
    row.paper, row.measured = (_figures(published[part].get(asked), tta) for part in ('paper', 'measured'))
    entry = published['paper'].get(asked) or {}
    row.source = entry.get('source', '')
    row.log = None if tta else _number(entry.get('log'))
    return row


def read_figures() -> dict[str, dict[tuple[str, str, str], dict]]:
    """``configs/paper_results.yml``.

    Returns:
        dict: 'paper' and 'measured', each {(method, backbone, data set): entry}.
    """
    with open(CONFIGS / 'paper_results.yml', encoding='utf-8') as f:
        content = yaml.safe_load(f)
    return {part: {(e['method'], e['backbone'], e['dataset']): e for e in content[part]} for part in content}


def _number(value) -> float | None:
    return None if value in (None, '-') else float(value)


def _figures(entry: dict | None, tta: bool) -> dict[str, float | None]:
    if tta:
        entry = {'all': (entry or {}).get('tta')}
    return {key: _number((entry or {}).get(key)) for key in FIGURES}


def beside_paper(row: Row, report: dict) -> dict[str, dict[str, float | None]]:
    """Our figures beside the published ones.

    Args:
        row (Row): With what is known.
        report (dict): What :class:`ShotReportHook` left of the test.

    Returns:
        dict: Of 'many', 'medium', 'few' and 'all': 'paper', 'log',
        'measured', 'ours', and 'difference', of ours to the first of these
        three that is known; None where a figure is not known.
    """
    table = {}
    for key in FIGURES:
        figures = dict(
            paper=row.paper.get(key),
            log=row.log if key == 'all' else None,
            measured=row.measured.get(key),
            ours=report['metrics'].get(key),
        )
        known = next((figures[k] for k in ('paper', 'log', 'measured') if figures[k] is not None), None)
        both = known is not None and figures['ours'] is not None
        table[key] = {**figures, 'difference': figures['ours'] - known if both else None}
    return table


def print_comparison(row: Row, table: dict, report: dict) -> None:
    """Print the table: a line for each shot group.

    Args:
        row (Row): The row.
        table (dict): Of :func:`beside_paper`.
        report (dict): See there.
    """
    columns = {'paper': 'paper', 'log': 'log of the published code', 'ours': 'ours', 'difference': 'difference'}
    if any(row.measured.values()):
        columns = {'paper': 'paper', 'measured': 'measured by us', 'ours': 'this run', 'difference': 'difference'}
    console = Console()
    if not console.is_terminal:
        console.width = 120
    printed = Table(title=Text(row.name), title_justify='left', caption_justify='left')
    printed.add_column('shots')
    for name in columns.values():
        printed.add_column(name, justify='right')
    measure = report.get('measure', 'accuracy')
    overall = overall_meaning(report['protocol'], measure)
    for key, figures in table.items():
        count = report['classes_per_shot'].get(key, overall if key == 'all' else None)
        cells = [shown(figures[column], column == 'difference') for column in columns]
        printed.add_row(key if count is None else f'{key} ({count})', *cells, style='bold' if key == 'all' else None)
    what = MEASURES[measure][0]
    source = f'; paper: {row.source}' if row.source else ''
    printed.caption = f'{what} in percent, {report["num_samples"]} test images, protocol {report["protocol"]}{source}'
    console.print(printed)


def shown(value: float | None, signed: bool = False) -> str:
    """A figure in a table; '-' for None."""
    return '-' if value is None else f'{value:+.1f}' if signed else f'{value:.1f}'


def write_record(path: str, row: Row, table: dict, report: dict, arguments: dict) -> None:
    """Write ``reproduce.json``.

    Args:
        path (str): The file.
        row (Row): The row.
        table (dict): Of :func:`beside_paper`.
        report (dict): See there.
        arguments (dict): What was asked for.
    """
    record = dict(
        **{key: value for key, value in asdict(row).items() if key not in ('paper', 'log', 'measured')},
        arguments=arguments,
        figures=table,
        protocol=report['protocol'],
        num_samples=report['num_samples'],
        overall=overall_meaning(report['protocol'], report.get('measure', 'accuracy')),
        versions=versions(),
        commit=commit(),
    )
    write_text(path, json.dumps(record, indent=1))


def versions() -> dict[str, str]:
    """Versions of what decides a result, and the device."""
    modules = dict(torch=torch, mmengine=mmengine, mmpretrain=mmpretrain, open_clip=open_clip)
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else 'CPU'
    found = {name: module.__version__ for name, module in modules.items()}
    return dict(mmlt=__version__, python=platform.python_version(), **found, device=device, platform=sys.platform)


def commit() -> str | None:
    """The commit of the package, with '-dirty' where its files differ from it; None where it is not in git."""
    # Pages and records that a run writes are no part of what runs.
    commands = ('ls-files --error-unmatch __init__.py', 'rev-parse HEAD', 'status --porcelain -- .')
    try:
        _, head, changes = (
            subprocess.run(['git', *c.split()], cwd=CONFIGS.parent, capture_output=True, text=True, check=True).stdout
            for c in commands
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return head.strip() + ('-dirty' if changes else '')

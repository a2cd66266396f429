"""Checking a row of a paper's table: what it needs, its training or the import of its checkpoint, its test."""

from __future__ import annotations

import os.path as osp
import shlex
from argparse import Namespace
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from mmlt.checkpoints import read_checkpoint
from mmlt.checkpoints.converters import checkpoint_kind
from mmlt.cli import import_ballad, import_vlltr
from mmlt.cli import test as test_cli
from mmlt.cli import train as train_cli
from mmlt.cli.launch import launch
from mmlt.cli.work.import_ballad import ADAPTER, convert_ballad
from mmlt.cli.work.import_vlltr import convert_vlltr
from mmlt.engine.configs import read_config
from mmlt.engine.paper_rows import FIGURES, Row, beside_paper, find_row, print_comparison, shown, write_record
from mmlt.engine.requirements import data_options, data_problems, missing_weights
from mmlt.engine.stages import RunRecord, Stage
from mmlt.engine.testing import test
from mmlt.engine.training import TrainOptions, planned, train
from mmlt.engine.training_cost import batch_notes, give_times, measure_step, print_costs, stage_costs
from mmlt.errors import InputError
from mmlt.visualization import read_report

# Published checkpoints that can be tested, by the method whose configs take them.
PUBLISHED = {'ballad': 'BALLAD', 'vlltr': 'VL-LTR stage 2'}


@dataclass
class Request:
    """A row, and how it is to be had.

    Args:
        row (Row): The row.
        args (Namespace): The arguments of mmlt reproduce.
        work_dir (str): Where everything lies.
        gpus (int): Processes that train.
        options (list[str]): ``key=value`` as for ``--cfg-options``.
        stages (list[Stage]): All of the config, earliest first.
    """

    row: Row
    args: Namespace
    work_dir: str
    gpus: int
    options: list[str]
    stages: list[Stage]

    @property
    def tested_in(self) -> str:
        """Where the test leaves its report: a training with ``--tta`` keeps its own."""
        return osp.join(self.work_dir, 'tta') if self.args.tta else self.work_dir

    def train_arguments(self) -> list[str]:
        """Those of mmlt train after the config."""
        args = self.args
        flags = [f'--{name.replace("_", "-")}' for name in ('amp', 'auto_scale_lr') if getattr(args, name)]
        if args.restart is not None:
            flags += ['--restart', *args.restart]
        if args.tta:
            flags.append('--no-test')
        return ['--work-dir', self.work_dir, *flags, *as_arguments(self.options)]


def reproduce(args: Namespace) -> dict:
    """Train or import, test, and compare with the paper.

    Args:
        args (Namespace): The arguments of mmlt reproduce.

    Returns:
        dict: See :func:`compare`.

    Raises:
        InputError: No such config; data that are missing or faulty; a
            checkpoint of another method; see also mmlt train.
    """
    request = _request(args)
    row, training = request.row, args.checkpoint is None
    if args.checkpoint:
        checked_kind(row, args.checkpoint)
    if problems := data_problems(request.stages[-1].cfg, row.download, training):
        more = f' (and {len(problems) - 1} more: add --dry-run to see all)' if len(problems) > 1 else ''
        raise InputError(problems[0] + more)
    if training:
        for note in batch_notes(stage_costs(request.stages, row.download, request.gpus)):
            print(note)
        _train(request)
    if not training or args.tta:
        _test(request)
    report = read_report(request.tested_in)
    table = beside_paper(row, report)
    print_comparison(row, table, report)
    record = osp.join(request.tested_in, 'reproduce.json')
    write_record(record, row, table, report, vars(args))
    print(f'Record: {record}')
    if osp.isfile(picture := osp.join(request.tested_in, 'shot_report.png')):
        print(f'Picture of every class: {picture}')
    return table


def dry_run(args: Namespace) -> list[str]:
    """Print what would be run, what it costs and what is missing.

    Args:
        args (Namespace): The arguments of mmlt reproduce.

    Returns:
        list[str]: What is missing, a sentence each.

    Raises:
        InputError: No such config; a time of a step that is none.
    """
    request = _request(args)
    row, training = request.row, args.checkpoint is None
    print(f'Config: {row.config}\nWork directory: {request.work_dir}')
    figures = ' / '.join(shown(row.paper.get(key)) for key in FIGURES)
    print(f'Paper, many / medium / few / all: {figures}{f" ({row.source})" if row.source else ""}\n')
    costs = stage_costs(request.stages, row.download, request.gpus) if training else []
    if training and args.measure:
        trained = [stage for stage in request.stages if stage.cfg.get('train_cfg')]
        for stage, cost in zip(trained, costs):
            print(f'Measuring a step of {stage.name} ...', flush=True)
            cost.seconds, note = measure_step(stage)
            print(note)
    elif training and args.step_time:
        give_times(costs, args.step_time)
    if costs:
        print_costs(costs, 'CPU' if args.measure and not torch.cuda.is_available() else 'GPU')
    print('\nCommands:')
    for command in _commands(request):
        print(command)
    missing = data_problems(request.stages[-1].cfg, row.download, training)
    missing += missing_weights(request.stages) if training else []
    if args.checkpoint and not osp.isfile(args.checkpoint):
        missing.append(f"The checkpoint '{args.checkpoint}' does not exist.")
    print('\nNothing is missing.' if not missing else '\nMissing:')
    for sentence in missing:
        print(f'- {sentence}')
    return missing


def _request(args: Namespace) -> Request:
    row = find_row(args.method, args.backbone, args.dataset, args.tta)
    gpus = max(1, torch.cuda.device_count()) if args.gpus is None else args.gpus
    work_dir = args.work_dir or osp.join('work_dirs', row.name + ('_published' if args.checkpoint else ''))
    options = list(args.cfg_options or ())
    if args.seed is not None:
        options.insert(0, f'randomness.seed={args.seed}')
    request = Request(row, args, work_dir, gpus, options, [])
    request.stages = _stages(request)
    if args.data:
        request.options = [*data_options(request.stages, args.data), *options]
        request.stages = _stages(request)
    return request


def _stages(request: Request) -> list[Stage]:
    return planned(_options(request))


def _options(request: Request) -> TrainOptions:
    return train_cli.parse_args([request.row.config, *request.train_arguments()])


def _train(request: Request) -> None:
    if request.gpus == 1:
        train(_options(request))
        return
    launch('train', request.row.config, request.train_arguments(), request.gpus)


def _test(request: Request) -> None:
    """Test the checkpoint that was given, or with ``--tta`` what was trained."""
    options, checkpoint = request.options, request.args.checkpoint
    if checkpoint:
        out = osp.join(request.work_dir, 'imported.pth')
        checkpoint, options = import_published(request.row, checkpoint, out, options)
    elif request.stages[-1].cfg.get('train_cfg'):
        checkpoint = RunRecord(request.work_dir).result
    words = [request.row.config, *([checkpoint] if checkpoint else []), '--work-dir', request.tested_in]
    test(test_cli.parse_args([*words, *(['--tta'] if request.args.tta else []), *as_arguments(options)]))


def _commands(request: Request) -> list[str]:
    """What does the same by hand."""
    row, args = request.row, request.args
    test = ['mmlt', 'test', row.config]
    tta = ['--tta'] if args.tta else []
    if args.checkpoint:
        there = osp.isfile(args.checkpoint)
        if row.method not in PUBLISHED or (there and checked_kind(row, args.checkpoint) == 'mmlt'):
            convert, tested, options = [], args.checkpoint, request.options
        else:
            tested, options = osp.join(request.work_dir, 'imported.pth'), [*_published_options(row), *request.options]
            convert = [
                ['mmlt', 'import', row.method, args.checkpoint, row.config, '--out', tested, *as_arguments(options)]
            ]
        tests = [*test, tested, '--work-dir', request.tested_in, *tta, *as_arguments(options)]
        return [*map(shlex.join, [*convert, tests])]
    train = ['mmlt', 'train', row.config]
    if request.gpus > 1:
        train = ['bash', 'tools/dist_train.sh', row.config, str(request.gpus)]
    names = ', '.join(f'{stage.name} ({stage.work_dir})' for stage in request.stages)
    commands = [f'# stages: {names}', shlex.join([*train, *request.train_arguments()])]
    if args.tta:
        checkpoint = [osp.join(request.work_dir, 'CHECKPOINT')] if request.stages[-1].cfg.get('train_cfg') else []
        commands.append(
            shlex.join([*test, *checkpoint, '--work-dir', request.tested_in, *tta, *as_arguments(request.options)])
        )
    return commands


def checked_kind(row: Row, path: str) -> str:
    """Whose checkpoint it is, after a check that the row can take it.

    Args:
        row (Row): The row.
        path (str): Of one of ours, or a published one.

    Returns:
        str: See :func:`mmlt.checkpoints.converters.checkpoint_kind`.

    Raises:
        InputError: It is missing or damaged; it is of another method or stage.
    """
    kind = checkpoint_kind(read_checkpoint(path))
    if kind in ('mmlt', PUBLISHED.get(row.method)):
        return kind
    if kind == 'another':
        raise InputError(f"'{path}' is a checkpoint of neither BALLAD, VL-LTR nor mmlt: {row.name} cannot take it.")
    if kind == 'VL-LTR stage 1':
        remedy = 'it has no classifier to test; mmlt import vlltr says how to train one on it'
    else:
        method = next(m for m, published in PUBLISHED.items() if published == kind)
        remedy = f'test it by mmlt reproduce {method} {row.backbone} {row.dataset}'
    raise InputError(f"'{path}' is a checkpoint of {kind}, which {row.name} cannot take: {remedy}.")


def import_published(row: Row, path: str, out: str, options: Sequence[str]) -> tuple[str, list[str]]:
    """Turn a published checkpoint into one of ours; one of ours stays as it is.

    Args:
        row (Row): The row.
        path (str): The checkpoint.
        out (str): Where the converted one goes.
        options (Sequence[str]): ``key=value`` as for ``--cfg-options``.

    Returns:
        tuple: The checkpoint to test, and the options to test it with.

    Raises:
        InputError: See :func:`checked_kind` and the importers.
    """
    if checked_kind(row, path) == 'mmlt':
        return path, list(options)
    options = [*_published_options(row), *options]
    words = [path, row.config, '--out', out, *as_arguments(options)]
    if row.method == 'ballad':
        convert_ballad(import_ballad.parse_args(words))
    else:
        convert_vlltr(import_vlltr.parse_args(words))
    return out, options


def _published_options(row: Row) -> list[str]:
    """What a published checkpoint needs and the config may not say."""
    if row.method != 'ballad' or not read_config(row.config).model.get('neck'):
        return []
    return [f'{key}={value}' for key, value in ADAPTER.items()]


def as_arguments(options: Sequence[str]) -> list[str]:
    """``key=value`` as arguments of a tool."""
    return ['--cfg-options', *options] if options else []

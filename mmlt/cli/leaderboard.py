"""Write docs/leaderboard.md from the records of runs, and with --run train and test what is missing.

    python tools/leaderboard.py
    python tools/leaderboard.py --run --seeds 0-2
    python tools/leaderboard.py --run --only 'lift|cue'

The rows are in docs/leaderboard.yml. Figures and provenance of the runs in --work-dir are kept in docs/leaderboard/,
from which the page is made where there are no runs. What is recorded or finished is not run again, so the same command
goes on after an interruption; the cheapest runs come first, and a run that fails is told at the end and does not stop
the others. To make a run anew, remove its line in the record.
"""

import argparse
import re
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import mmlt  # noqa: F401  registers everything
from mmlt.apis.posthoc import chosen_tau_report
from mmlt.checkpoints import write_text
from mmlt.cli import train as train_cli
from mmlt.cli.common import verb
from mmlt.cli.work.seeds import read_seeds, run_one
from mmlt.engine.configs import CONFIGS, config_names
from mmlt.engine.paper_rows import read_figures
from mmlt.engine.requirements import draw_options
from mmlt.engine.stages import RunRecord
from mmlt.engine.training import planned
from mmlt.engine.training_cost import stage_costs
from mmlt.errors import InputError
from mmlt.options import ToolParser
from mmlt.visualization.leaderboard import BoardRow, Group, Runs, check_runs, read_board, read_runs
from mmlt.visualization.leaderboard_excerpt import fill_excerpts
from mmlt.visualization.leaderboard_figures import fill_measured, fill_metafile, measured_figures
from mmlt.visualization.leaderboard_page import board_page
from mmlt.visualization.leaderboard_picture import plot_board
from mmlt.visualization.leaderboard_records import complete, merged, read_records, write_records

REPO = Path(__file__).resolve().parents[2]


def parse_args(argv=None):
    parser = ToolParser(__doc__)
    parser.add_argument('--run', action='store_true', help='train and test what is missing first')
    parser.add_argument('--seeds', default='0-2', help='0-2, or 0,3,7; default 0-2')
    parser.add_argument('--only', metavar='REGEX', help='--run: only rows with it in their folder or label')
    parser.add_argument('--work-dir', default='work_dirs/leaderboard', help='default work_dirs/leaderboard')
    parser.add_argument('--board', default=str(REPO / 'docs/leaderboard.yml'), help='list of rows')
    parser.add_argument(
        '--records', default=str(REPO / 'docs/leaderboard'), help='what the page keeps of runs, a JSON file a row'
    )
    parser.add_argument('--out', default=str(REPO / 'docs/leaderboard.md'), help='page to write')
    parser.add_argument('--readme', default=str(REPO / 'README.md'), help='page whose tables of main rows are filled')
    parser.add_argument('--configs', default=str(CONFIGS), help="folder whose figures 'measured by us' are filled")
    args = parser.parse_args(argv)
    if args.only and not args.run:
        parser.error('--only belongs to --run: the page always has all rows')
    return args


def cost(row: BoardRow) -> int:
    """Pictures that a run of a row goes through in training, those of shared stages too."""
    options = ['--cfg-options', *row.options] if row.options else []
    stages = planned(train_cli.parse_args([row.config, *options]))
    return sum(c.batch * (c.steps or 0) * c.passes for c in stage_costs(stages, None, 1))


def take(group: Group, args: argparse.Namespace) -> Runs:
    """The runs of a table that are recorded or have a folder; those that have one are recorded."""
    seeds, adjusted = read_seeds(args.seeds), partial(chosen_tau_report, taus=args.taus)
    runs = read_runs(group, args.work_dir, seeds, adjusted)
    runs = check_runs(group, merged(read_records(group, args.records, seeds), runs))
    write_records(group, runs, args.records)
    return runs


def run_row(group: Group, row: BoardRow, seeds: list[int], work_dir: str) -> list[str]:
    """Make the runs of a row: test with scores, test with TTE, and where tau needs it one of another draw.

    Returns:
        list[str]: What failed, a sentence each.
    """
    stages, failed = planned(train_cli.parse_args([row.config])), []
    runs = [(f'seed{seed}', seed, seed if group.draws else None) for seed in seeds]
    if group.tau_draw is not None:
        runs.append((f'draw{group.tau_draw}', 0, group.tau_draw))
    for name, seed, draw in runs:
        options = [*row.options, *([] if draw is None else draw_options(stages, group.dataset, draw))]
        folder = str(Path(work_dir, row.folder, name))
        for tta in (False, True) if name.startswith('seed') else (False,):
            what = f'{row.folder}, {name}{", TTE" if tta else ""}'
            print(f'== {what}: {folder}', flush=True)
            try:
                args = argparse.Namespace(tta=tta, save_logits=not tta, gpus=1, cfg_options=options)
                run_one(row.config, seed, folder, args)
            except InputError as e:
                failed.append(f'{what}: {e}')
                print(f'mmlt: {failed[-1]}', file=sys.stderr, flush=True)
                if not RunRecord(folder).finished:
                    break  # TTE would train again what has just failed
    return failed


def run_all(groups: list[Group], args: argparse.Namespace) -> list[str]:
    """Make what is missing of all rows, the cheapest first, and record it; returns what failed, a sentence each."""
    only, failed = args.only, []
    rows = [(group, row) for group in groups for row in group.rows]
    rows = [(g, r) for g, r in rows if only is None or re.search(only, r.folder) or re.search(only, r.label)]
    if not rows:
        raise InputError(f"No row has '{only}' in its folder or label.")
    rows.sort(key=lambda pair: cost(pair[1]))
    for group, row in rows:
        alone = replace(group, rows=[row])
        known = take(alone, args)[row.folder]
        seeds = [seed for seed in read_seeds(args.seeds) if not complete(known.get(seed))]
        if seeds:
            failed += run_row(group, row, seeds, args.work_dir)
            take(alone, args)
    return failed


@verb(parse_args)
def main(args):
    groups, args.taus = read_board(args.board)
    failed = run_all(groups, args) if args.run else []
    if not (args.run or Path(args.records).is_dir()):
        print(f"mmlt: there is no folder '{args.records}': what is not in --work-dir is missing.", file=sys.stderr)
    found = {group.key: (group, take(group, args)) for group in groups}
    out = Path(args.out)
    old = out.read_text(encoding='utf-8') if out.is_file() else ''
    pictures = {key: f'{out.stem}/{key}.png' for key in found}
    pictures = {key: name for key, name in pictures.items() if plot_board(*found[key], out.parent / name)}
    write_text(out, board_page(found, read_seeds(args.seeds), read_figures()['paper'], old, pictures))
    readme = Path(args.readme)
    names = config_names()
    if readme.is_file():
        filled = fill_excerpts(
            readme.read_text(encoding='utf-8'), found, lambda name: f'configs/{names[name].relative_to(CONFIGS)}'
        )
        write_text(readme, filled)
    else:
        print(f"mmlt: there is no page '{readme}', so no table of main rows was filled.", file=sys.stderr)
    figures = measured_figures(found)
    for file in (Path(args.configs, 'paper_results.yml'), *sorted(Path(args.configs).glob('*/metafile.yml'))):
        if file.is_file():
            fill = fill_measured if file.name == 'paper_results.yml' else fill_metafile
            write_text(file, fill(file.read_text(encoding='utf-8'), figures))
    print(f'Page: {args.out}')
    if failed:
        raise InputError(f'{len(failed)} run(s) failed:\n' + '\n'.join(failed))

"""Steps after a test: their tables and pictures."""

import os.path as osp
from argparse import Namespace

from rich.console import Console
from rich.table import Table
from rich.text import Text

from mmlt.apis.posthoc import Steps, make_steps, parse_prior, parse_taus, step_report, write_classes
from mmlt.evaluation.posthoc import negative_log_likelihood_of, shot_reliability
from mmlt.evaluation.scores_file import read_scores
from mmlt.visualization import comparison_table, summarise, what_is_shown
from mmlt.visualization.posthoc import plot_reliability, plot_tau


def print_tables(reports: dict, reliabilities: dict, steps: Steps) -> None:
    console = Console()
    if not console.is_terminal:
        console.width = 120
    rows = {name: [report] for name, report in reports.items()}
    first = next(iter(reports.values()))
    console.print(comparison_table(summarise(rows), what_is_shown(first, f'{first["num_samples"]} test images, ')))
    title = 'expected calibration error in percent; negative log-likelihood in nats'
    table = Table(title=Text(title), title_justify='left')
    groups = next(iter(reliabilities.values()))
    for heading in ('', *groups, 'NLL'):
        table.add_column(heading, justify='right' if heading else 'left')
    for name, found in reliabilities.items():
        errors = [f'{group["ece"]:.1f}' for group in found.values()]
        table.add_row(Text(name), *errors, f'{negative_log_likelihood_of(steps.logits[name], steps.labels):.3f}')
    console.print(table)


def adjust(args: Namespace) -> None:
    """Apply the steps, print the tables, write the files."""
    scores = read_scores(args.scores)
    val = args.val and read_scores(args.val)
    taus = None if args.tau is None else parse_taus(args.tau)
    prior = None if args.prior is None else parse_prior(args.prior, scores)
    norm_taus = None if args.tau_norm is None else parse_taus(args.tau_norm, '--tau-norm')
    steps = make_steps(scores, val, taus, args.temperature, prior, args.seed, norm_taus)
    protocol = args.protocol or str(scores.facts.get('protocol', 'standard'))
    reports = {name: step_report(scores, steps.labels, z, protocol) for name, z in steps.logits.items()}
    found = {name: shot_reliability(z, steps.labels, scores.class_counts, protocol) for name, z in steps.logits.items()}
    for note in steps.notes:
        print(note)
    print_tables(reports, found, steps)
    out = args.out or f'{osp.splitext(args.scores)[0]}_posthoc'
    write_classes(scores, steps, osp.join(out, 'classes.csv'))
    plot_reliability(found, osp.join(out, 'reliability.png'))
    written = ['classes.csv', 'reliability.png']
    if steps.sweep is not None:
        plot_tau(*steps.sweep, osp.join(out, 'tau.png'))
        written.append('tau.png')
    print(f'{", ".join(written)} in {out}')

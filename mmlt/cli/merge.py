"""Merge checkpoints of one architecture into one: soups, WiSE-FT, and the recursion of LT-Soups.

    mmlt merge A.pth B.pth --out soup.pth
    mmlt merge A.pth B.pth --out soup.pth --weights 2 1
    mmlt merge A.pth B.pth C.pth --out soup.pth --greedy CONFIG
    mmlt merge A.pth --out wise.pth --wise-ft ZEROSHOT.pth --config CONFIG
    mmlt merge A.pth --out wise.pth --wise-ft pretrained --config CONFIG
    mmlt merge A.pth --out wise.pth --wise-ft ZEROSHOT.pth --alphas 0.5
    mmlt merge I1.pth I2.pth I4.pth --out soup.pth --lt-soups ZEROSHOT.pth

--greedy and a range of --alphas choose on the validation set of CONFIG, never on its test set unless --on-test says so.
With --wise-ft several checkpoints are merged first. alpha is the share of the fine-tuned model; the sweep's table and
picture go to --work-dir. --wise-ft pretrained is the model as CONFIG begins. --bn-images measures the statistics of
BatchNorm on training images of CONFIG, for all that is compared and for the result; without it they are averaged.
"""

import os.path as osp

from rich.console import Console

from mmlt.apis.merging import Validation, check_paths, figure_of, read_weights, sign_of, sweep, write_merged
from mmlt.apis.posthoc import parse_taus
from mmlt.checkpoints.merging import (
    Merged,
    average,
    averaged_statistics,
    check_mergeable,
    greedy,
    interpolate,
    lt_soups,
)
from mmlt.cli.common import told
from mmlt.engine.options import CfgOptions, ToolParser, at_least
from mmlt.errors import InputError
from mmlt.visualization import comparison_table, summarise, what_is_shown, write_json
from mmlt.visualization.merging import plot_sweep


def parse_args(argv=None):
    parser = ToolParser(__doc__)
    parser.add_argument('checkpoints', nargs='+', help='of trainings')
    parser.add_argument('--out', required=True, help='where the merged one goes')
    parser.add_argument('--weights', nargs='+', type=float, help='a share for each checkpoint; default equal ones')
    parser.add_argument('--greedy', metavar='CONFIG', help='take only what does not hurt on its validation set')
    parser.add_argument('--lt-soups', metavar='ANCHOR', help='merge one by one into ANCHOR, the most balanced first')
    parser.add_argument('--ratio', type=float, help='share of each with --lt-soups; default 0.7')
    parser.add_argument('--wise-ft', metavar='ZEROSHOT', help="a checkpoint, or 'pretrained' for CONFIG's own")
    parser.add_argument('--alphas', help='with --wise-ft, a number or first:last:step; default 0:1:0.1')
    parser.add_argument('--config', help='whose validation set the alpha is chosen on; default that of --greedy')
    parser.add_argument('--figure', default='all', help='of the shot metric, to choose by; default all')
    parser.add_argument('--on-test', action='store_true', help='choose on the test set; the result is no estimate')
    parser.add_argument('--bn-images', type=at_least(1), help='training images of CONFIG to measure BatchNorm on')
    parser.add_argument('--work-dir', help='for log, table and picture; default OUT_merging')
    parser.add_argument('--cfg-options', nargs='+', action=CfgOptions, help='settings to override, key=value')
    args = parser.parse_args(argv)
    ways = [name for name in ('weights', 'greedy', 'lt_soups') if getattr(args, name) is not None]
    if len(ways) > 1:
        parser.error(f'--{ways[0]} and --{ways[1]} are two ways to merge: give one'.replace('_', '-'))
    for option, needed in (('alphas', 'wise_ft'), ('ratio', 'lt_soups')):
        if getattr(args, option) is not None and getattr(args, needed) is None:
            parser.error(f'--{option} needs --{needed}'.replace('_', '-'))
    if args.bn_images and not (args.config or args.greedy):
        parser.error('--bn-images needs --config, whose training images are looked at')
    if len(args.checkpoints) == 1 and not (args.wise_ft or args.lt_soups):
        parser.error('one checkpoint is nothing to merge: give several, or --wise-ft')
    args.work_dir = args.work_dir or f'{osp.splitext(args.out)[0]}_merging'
    return args


def make_validation(args, config: str | None, contents: dict, chooses: bool) -> Validation:
    if config is None and not chooses:
        raise InputError('--wise-ft pretrained is the model as a config begins: say by --config which.')
    if config is None:
        raise InputError('A range of --alphas is chosen on a validation set: give --config, or one number as --alphas.')
    # Where nothing is chosen, the test set may stand for a validation set that the config does not have.
    on_test = args.on_test or not chooses
    validation = Validation(config, args.work_dir, args.cfg_options, on_test, args.bn_images or 0)
    validation.check(contents)
    if chooses:
        validation.check_figure(args.figure)
    if args.on_test and chooses:
        print('It is chosen on the TEST set, so its figures are no estimate for other data.')
    return validation


def print_reports(reports: dict[str, dict], where: str) -> None:
    console = Console()
    if not console.is_terminal:
        console.width = 120
    first = next(iter(reports.values()))
    title = what_is_shown(first, f'{where}, {first["num_samples"]} images, ')
    console.print(comparison_table(summarise({name: [report] for name, report in reports.items()}), title))


def short_names(paths: list[str]) -> dict[str, str]:
    """Paths without the folder that they share, for a table."""
    folder = osp.commonpath([osp.dirname(osp.abspath(path)) for path in paths])
    return {path: osp.relpath(osp.abspath(path), folder) for path in paths}


def merge_greedily(states: dict, args, validation: Validation) -> tuple[Merged, dict]:
    reports, sign = [], sign_of(args.figure)

    def score(state) -> float:
        reports.append(validation.report(state, 'a soup'))
        return sign * figure_of(reports[-1], args.figure)

    soup = greedy(states, score)
    score_of_soup = sign * soup.score
    short = short_names(list(states))
    added = [f'+ {short[name]}{"" if stayed else " (left out)"}' for name, _, stayed in soup.steps[1:]]
    tried = [*short.values(), *added]
    print_reports(dict(zip(tried, reports)), validation.where)
    print(f'{len(soup.chosen)} of {len(states)}: {", ".join(soup.chosen)}; {args.figure} {score_of_soup:.2f}')
    return soup.merged, dict(way='greedy', figure=args.figure, score=score_of_soup, chosen_on=validation.where)


def merge_states(states: dict, args, validation: Validation | None) -> tuple[Merged, dict]:
    """The checkpoints without their zero-shot model."""
    if args.greedy:
        return merge_greedily(states, args, validation)
    if args.lt_soups:
        ratio = 0.7 if args.ratio is None else args.ratio
        anchor = states.pop(args.lt_soups)
        merged = lt_soups(anchor, [{name: state} for name, state in states.items()], ratio)
        merged.weights = {args.lt_soups: merged.weights.pop('the anchor'), **merged.weights}
        return merged, dict(way='lt-soups', ratio=ratio)
    return average(states, args.weights), dict(way='uniform' if args.weights is None else 'weighted')


def interpolate_with_zero_shot(
    tuned: Merged, zero_shot: dict, alphas: list[float], args, validation: Validation | None
) -> tuple[Merged, dict]:
    names = (args.wise_ft, 'fine-tuned')
    how = dict(wise_ft=args.wise_ft)
    if len(alphas) == 1:
        merged, how['alpha'] = interpolate(zero_shot, tuned.state, alphas[0], names), alphas[0]
    else:
        found = sweep(zero_shot, tuned.state, alphas, validation.report, args.figure, names)
        merged, how['alpha'] = found.merged, alphas[found.chosen]
        score = figure_of(found.reports[found.chosen], args.figure)
        how.update(figure=args.figure, score=score, chosen_on=validation.where)
        print_reports({f'alpha {a:g}': report for a, report in zip(alphas, found.reports)}, validation.where)
        print(f'alpha {how["alpha"]:g} is the best of {len(alphas)} on {validation.where}: {args.figure} {score:.2f}')
        picture = osp.join(args.work_dir, 'sweep.png')
        plot_sweep(alphas, found.figures(), how['alpha'], picture, validation.where)
        write_json(
            dict(alphas=alphas, chosen=how['alpha'], reports=found.reports), osp.join(args.work_dir, 'sweep.json')
        )
        print(f'sweep.json, sweep.png in {args.work_dir}')
    share = merged.weights['fine-tuned']
    merged.weights = {args.wise_ft: 1 - share, **{name: share * w for name, w in tuned.weights.items()}}
    merged.notes = [*dict.fromkeys([*tuned.notes, *merged.notes])]
    layers = [*tuned.averaged_statistics * (share > 0), *merged.averaged_statistics]
    merged.averaged_statistics = [*dict.fromkeys(layers)]
    return merged, how


@told
def main(argv=None):
    args = parse_args(argv)
    anchor = args.wise_ft if args.wise_ft != 'pretrained' else None
    anchors = [path for path in (args.lt_soups, anchor) if path]
    check_paths([*args.checkpoints, *dict.fromkeys(anchors)], args.out)
    alphas = parse_taus(args.alphas or '0:1:0.1', '--alphas') if args.wise_ft else []
    if any(alpha > 1 for alpha in alphas):
        raise InputError(f"--alphas is '{args.alphas}'; alpha is a share, from 0 to 1.")
    contents = {path: read_weights(path) for path in dict.fromkeys([*args.checkpoints, *anchors])}
    notes = check_mergeable(contents)
    config = args.config or args.greedy
    validation = None
    chooses = bool(args.greedy) or len(alphas) > 1
    if chooses or args.bn_images or args.wise_ft == 'pretrained':
        validation = make_validation(args, config, contents, chooses)
    states = {path: content['state_dict'] for path, content in contents.items()}
    if anchor:
        zero_shot = states[anchor] if anchor == args.lt_soups else states.pop(anchor)
    elif args.wise_ft:
        zero_shot = validation.pretrained()
    if args.bn_images:
        layers = averaged_statistics({**states, 'zero-shot': zero_shot} if args.wise_ft else states)
        validation.measure(layers)
        how_measured = dict(bn_images=args.bn_images, bn_layers=len(layers))
        print(f'BatchNorm layers whose statistics are measured on {args.bn_images} training images: {len(layers)}')
    merged, how = merge_states(states, args, validation)
    if args.wise_ft:
        merged, more = interpolate_with_zero_shot(merged, zero_shot, alphas, args, validation)
        how.update(more)
    if args.bn_images:
        merged, how = validation.measured(merged), {**how, **how_measured}
    write_merged(args.out, merged, contents[args.checkpoints[0]]['meta'], how)
    for note in [*notes, *merged.notes, *merged.statistics_note()]:
        print(note)
    print(f'{args.out}: {", ".join(f"{share:.3f} {name}" for name, share in merged.weights.items())}')

"""Train and test configs with several seeds: one table with mean and deviation, and paired differences.

    mmlt seeds lift_tiny-vit_mnist-lt ce_tiny-vit_mnist-lt --seeds 0-2
    mmlt seeds vlltr_tiny_mnist-lt --seeds 0,3,7 --tta

What is finished is not trained again, so the same command goes on after an interruption, and with more seeds. The
differences are those to the first config, seed by seed, with 95 % intervals (paired t). Tables go to seeds.md and
seeds.json in the work directory. A stage that configs share (a pretraining with a folder of its own) is trained once.
Every run folder has provenance.json: config, seed, options, and commit, versions and seconds of all that was started.
--save-logits keeps the scores as test.npz, and val.npz of a validation split apart from the test, for mmlt posthoc.
"""

import json
import os.path as osp
import re

from rich.console import Console

from mmlt.checkpoints import write_text
from mmlt.cli.common import told
from mmlt.cli.launch import launch
from mmlt.engine.configs import read_config
from mmlt.engine.options import ToolParser, at_least
from mmlt.engine.provenance import Provenance
from mmlt.engine.stages import RunRecord
from mmlt.errors import InputError
from mmlt.visualization import comparison_markdown, comparison_table, read_report, summarise, what_is_shown
from mmlt.visualization.paired import difference_markdown, difference_table, paired_differences


def parse_args(argv=None):
    parser = ToolParser(__doc__)
    parser.add_argument('configs', nargs='+', metavar='CONFIG', help='files or names')
    parser.add_argument('--seeds', default='0-4', help='0-4, or 0,3,7; default 0-4')
    parser.add_argument('--work-dir', default='work_dirs/seeds', help='default work_dirs/seeds')
    parser.add_argument('--tta', action='store_true', help='test with test-time augmentation')
    parser.add_argument('--save-logits', action='store_true', help='keep the scores of every run as .npz files')
    parser.add_argument('--gpus', type=at_least(1), default=1, help='processes that train; default 1')
    parser.add_argument('--cfg-options', nargs='+', metavar='KEY=VALUE', help='settings to override in all of them')
    return parser.parse_args(argv)


def read_seeds(text: str) -> list[int]:
    """Seeds of '0-4' or '0,3,7-9'.

    Raises:
        InputError: It is neither, or names a seed twice.
    """
    seeds: list[int] = []
    for part in text.split(','):
        if (found := re.fullmatch(r'\s*(\d+)(?:-(\d+))?\s*', part)) is None:
            raise InputError(f"--seeds is '{text}': give a range as 0-4, or numbers as 0,3,7.")
        first, last = int(found[1]), int(found[2] or found[1])
        seeds += range(first, last + 1)
    if not seeds or len(set(seeds)) < len(seeds):
        why = 'names a seed twice: give each once' if seeds else 'is empty: give the smaller number first, as 0-4'
        raise InputError(f"--seeds is '{text}', which {why}.")
    return seeds


def run_one(config: str, seed: int, folder: str, args) -> dict:
    """The report of a config with a seed, which is trained and tested if it was not before."""
    cfg = read_config(config)
    options = ['--cfg-options', f'randomness.seed={seed}', *(args.cfg_options or ())]
    provenance = Provenance(folder, osp.splitext(osp.basename(config))[0], seed, args.cfg_options or ())
    tested = osp.join(folder, 'tta') if args.tta else folder
    splits = splits_to_save(cfg) if args.save_logits else {}
    files = [osp.join(tested, 'shot_report.json'), *(osp.join(tested, f'{name}.npz') for name in splits)]
    done = all(map(osp.isfile, files))
    trains = cfg.get('train_cfg') is not None
    staged = trains or bool(cfg.get('stages'))  # of a head that is not trained, the stages are
    apart = args.tta or args.save_logits or not staged
    finished = not trains or RunRecord(folder).finished
    if not (done and finished):
        if staged and not (apart and finished and provenance.trained):
            arguments = ['--work-dir', folder, *(['--no-test'] if apart else []), *options]
            with provenance.step('train'):
                launch('train', config, arguments, args.gpus)
        if apart:
            with provenance.step('tta' if args.tta else 'test'):
                test_one(config, cfg, folder, tested, options, args)
    return read_report(tested)


def test_one(config: str, cfg, folder: str, tested: str, options: list[str], args) -> None:
    """Test what was trained in a folder, on the validation split as well where its scores are to be saved."""
    checkpoint = [RunRecord(folder).result] if cfg.get('train_cfg') is not None else []
    # A test whose results lie elsewhere has to find the stages of this run.
    own = [name for name, stage in (cfg.get('stages') or {}).items() if not stage.get('work_dir')]
    options = [*options, *(f'stages.{name}.work_dir={osp.join(folder, name)}' for name in own)]
    tta = ['--tta'] if args.tta else []
    for split, of_split in (splits_to_save(cfg) if args.save_logits else {'test': []}).items():
        # The validation's report must not be taken for the test's.
        where = tested if split == 'test' else osp.join(tested, split)
        save = ['--save-logits', osp.join(tested, f'{split}.npz')] if args.save_logits else []
        launch('test', config, [*checkpoint, '--work-dir', where, *tta, *save, *options, *of_split])


def splits_to_save(cfg) -> dict[str, list[str]]:
    """The splits whose scores are saved, and the options with which a test runs on them.

    Args:
        cfg (Config): The config.

    Returns:
        dict[str, list[str]]: 'test', and 'val' where the validation split is
        another one and differs in plain settings only, such as its list.
    """
    splits: dict[str, list[str]] = {'test': []}
    loaders = [cfg.get(f'{part}_dataloader') for part in ('val', 'test')]
    if None in loaders:
        return splits
    val, test = (dict(loader.dataset) for loader in loaders)
    differs = {key: val.get(key) for key in {*val, *test} if key != 'pipeline' and val.get(key) != test.get(key)}
    if differs and all(isinstance(value, (str, int, float)) for value in differs.values()):
        splits['val'] = [f'test_dataloader.dataset.{key}={value}' for key, value in sorted(differs.items())]
    return splits


def write_tables(groups: dict[str, list[dict]], seeds: list[int], folder: str, tta: bool = False) -> None:
    """Print the tables, and write them as Markdown and JSON."""
    rows, title = summarise(groups), what_is_shown(next(iter(groups.values()))[0])
    title += ', with test-time augmentation' * tta
    differences = paired_differences(groups)
    console = Console()
    if not console.is_terminal:
        console.width = 120
    console.print(comparison_table(rows, title))
    text = f'{len(seeds)} seeds ({", ".join(map(str, seeds))}), mean ± sample deviation.\n\n'
    text += comparison_markdown(rows, title) + '\n'
    if differences:
        console.print(difference_table(differences))
        text += f'\nPaired differences, 95 % intervals (t):\n\n{difference_markdown(differences)}\n'
    write_text(osp.join(folder, 'seeds.md'), text)
    content = dict(seeds=seeds, tta=tta, mean_and_deviation=rows, differences=differences)
    write_text(osp.join(folder, 'seeds.json'), json.dumps(content, indent=1))
    print(f'Tables: {osp.join(folder, "seeds.md")}, seeds.json')


@told
def main(argv=None):
    args = parse_args(argv)
    seeds = read_seeds(args.seeds)
    names = [osp.splitext(osp.basename(config))[0] for config in args.configs]
    if twice := next((n for n in names if names.count(n) > 1), None):
        raise InputError(f"Two configs are named '{twice}': their runs would share a folder; rename one.")
    for config in args.configs:
        cfg = read_config(config)  # before anything is trained
        if args.save_logits and 'val' not in splits_to_save(cfg):
            print(
                f"'{config}' has no validation split apart from the test: there will be no val.npz, and mmlt posthoc "
                'takes one number as --tau then.'
            )
    groups = {}
    for name, config in zip(names, args.configs):
        groups[name] = []
        for seed in seeds:
            folder = osp.join(args.work_dir, name, f'seed{seed}')
            print(f'== {name}, seed {seed}: {folder}', flush=True)
            groups[name].append(run_one(config, seed, folder, args))
    write_tables(groups, seeds, args.work_dir, args.tta)

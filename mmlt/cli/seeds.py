"""Train and test configs with several seeds: one table with mean and deviation, and paired differences.

    mmlt seeds lift_tiny-vit_mnist-lt ce_tiny-vit_mnist-lt --seeds 0-2
    mmlt seeds vlltr_tiny_mnist-lt --seeds 0,3,7 --tta

What is finished is not trained again, so the same command goes on after an interruption, and with more seeds. The
differences are those to the first config, seed by seed, with 95 % intervals (paired t). Tables go to seeds.md and
seeds.json in the work directory. A stage that configs share (a pretraining with a folder of its own) is trained once.
Every run folder has provenance.json: config, seed, options, and commit, versions and seconds of all that was started.
--save-logits keeps the scores as test.npz, and val.npz of a validation split apart from the test, for mmlt posthoc.
"""

from mmlt.cli.common import verb
from mmlt.options import ToolParser, at_least


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


@verb(parse_args)
def main(args):
    from mmlt.cli.work.seeds import run_seeds

    return run_seeds(args)

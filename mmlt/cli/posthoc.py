"""Adjust, correct and calibrate the scores of a test without training again.

    mmlt posthoc work_dirs/test.npz --tau 1
    mmlt posthoc work_dirs/test.npz --val work_dirs/val.npz --tau 0:2:0.1 --temperature
    mmlt posthoc work_dirs/test.npz --prior backward:10

The files are those of mmlt test ... --save-logits FILE.npz. A range of tau and the temperature are chosen on
--val, never on the test. --prior forward:RATIO and backward:RATIO draw a long-tailed test set as SADE has them. With
--tau, the correction of the prior starts from uniform classes, for which the adjusted scores are: --tau 0 is for a
model that was trained with a balanced loss or sampler.
"""

from mmlt.choices import SHOT_PROTOCOLS
from mmlt.cli.common import verb
from mmlt.options import ToolParser, at_least


def parse_args(argv=None):
    parser = ToolParser(__doc__)
    parser.add_argument('scores', metavar='TEST.npz', help='scores of the test')
    parser.add_argument('--val', metavar='VAL.npz', help='scores of a validation split, to choose on')
    parser.add_argument('--tau', help='strength of the logit adjustment, a number or first:last:step')
    parser.add_argument('--tau-norm', help='tau-normalisation of a linear classifier, a number or first:last:step')
    parser.add_argument('--temperature', action='store_true', help='fit a temperature on --val')
    parser.add_argument('--prior', help="uniform, forward:RATIO, backward:RATIO, or a table of 'class' and 'prior'")
    parser.add_argument('--protocol', choices=list(SHOT_PROTOCOLS), help="many, medium and few; default the test's")
    parser.add_argument('--seed', type=at_least(0), default=0, help='of the images drawn for a prior; default 0')
    parser.add_argument('--out', help='folder for table and pictures; default NAME_posthoc beside NAME.npz')
    return parser.parse_args(argv)


@verb(parse_args)
def main(args):
    from mmlt.cli.work.posthoc import adjust

    return adjust(args)

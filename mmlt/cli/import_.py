"""Convert a published checkpoint of BALLAD or VL-LTR to one of mmlt.

    mmlt import ballad checkpoint.pth ballad_rn50_imagenet-lt --out ballad.pth
    mmlt import vlltr checkpoint.pth vlltr_rn50_imagenet-lt --out lgr.pth

Everything after the project's name goes to its importer: mmlt import ballad --help.
"""

import sys

from mmlt.cli import import_ballad, import_vlltr

IMPORTERS = {'ballad': import_ballad, 'vlltr': import_vlltr}


def main(argv=None):
    argv = sys.argv[1:] if argv is None else argv
    if not argv or argv[0] in ('-h', '--help'):
        print(__doc__)
        return 0
    if argv[0] not in IMPORTERS:
        sys.exit(f"mmlt: there is no importer for '{argv[0]}'; there are {', '.join(IMPORTERS)}.")
    sys.argv = [f'mmlt import {argv[0]}', *argv[1:]]
    return IMPORTERS[argv[0]].main(argv[1:])

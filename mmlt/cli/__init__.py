"""The command ``mmlt``: one module a verb."""

from __future__ import annotations

import difflib
import importlib
import os
import sys
from collections.abc import Sequence

from mmlt.version import __version__

# Verb: module, what it does.
VERBS = {
    'train': ('train', 'train a model, all stages of its method'),
    'test': ('test', 'test a checkpoint, or a pretrained model'),
    'infer': ('infer', 'classify pictures'),
    'prepare': ('prepare', 'make pictures of your own into a data set with ready configs'),
    'check': ('check', 'check a downloaded data set'),
    'config': ('config', 'list the configs that mmlt comes with, print or copy one'),
    'models': ('models', 'list the models, with what papers report'),
    'report': ('report', 'write a page (HTML) about one or several runs'),
    'compare': ('compare', 'print the many / medium / few table of several runs'),
    'seeds': ('seeds', 'train and test with several seeds: mean, deviation, intervals'),
    'posthoc': ('posthoc', 'adjust and calibrate the scores of a test'),
    'reproduce': ('reproduce', "check a row of a paper's table"),
    'export': ('export', 'write a classifier as ONNX or TorchScript'),
    'import': ('import_', 'convert published checkpoints'),
    'publish': ('publish', "make a training's checkpoint one to give away"),
    'to-open-clip': ('to_open_clip', 'write both towers as an open_clip weight file'),
    'anchors': ('select_anchors', 'select anchor sentences for a CVLP checkpoint'),
    'plot-losses': ('plot_losses', 'draw the losses of a run'),
    'plot-gain': ('plot_class_gain', 'draw what a run gains over another in every class'),
    'concepts': ('retrieve_concepts', 'find the pictures nearest to words'),
    'merge': ('merge', 'merge checkpoints: soups, WiSE-FT'),
    'neighbours': ('class_neighbours', 'find the neighbours of every class by its text, for CUE'),
    'bench': ('bench', 'run a benchmark of speed or memory'),
    'doctor': ('doctor', 'say what is installed here, and what will not work'),
}


def usage() -> str:
    """What is said without a verb."""
    width = max(map(len, VERBS))
    lines = [f'  {verb:{width}}  {what}' for verb, (_, what) in VERBS.items()]
    return '\n'.join(
        [
            f'mmlt {__version__}: vision-language long-tailed recognition.',
            '',
            'Usage: mmlt VERB [arguments]; mmlt VERB --help tells them.',
            '',
            *lines,
            '',
            'First: mmlt train vlltr_tiny_mnist-lt',
        ]
    )


def main(argv: Sequence[str] | None = None):
    """Run a verb.

    Args:
        argv (Sequence[str], optional): The verb and its arguments. Defaults
            to None, those of the command line.

    Returns:
        int | None: The exit code.
    """
    try:
        result = _run(argv)
        sys.stdout.flush()
        return result
    except BrokenPipeError:
        try:
            print(flush=True)
        except BrokenPipeError:  # of the output, not of a worker: whoever reads has seen enough, as `head` has
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 141  # as a shell says of SIGPIPE
        raise


def _run(argv: Sequence[str] | None):
    verb, *rest = [*(sys.argv[1:] if argv is None else argv), ''][:1] + list(sys.argv[2:] if argv is None else argv[1:])
    if verb in ('', '-h', '--help', 'help'):
        print(usage())
        return 0 if verb else 2
    if verb in ('--version', '-V'):
        print(__version__)
        return 0
    if verb not in VERBS:
        near = difflib.get_close_matches(verb, VERBS, 1, 0.5)
        meant = f", perhaps '{near[0]}'" if near else ''
        print(f"mmlt: there is no verb '{verb}'{meant}; there are {', '.join(VERBS)}.", file=sys.stderr)
        return 2
    module = importlib.import_module(f'mmlt.cli.{VERBS[verb][0]}')
    sys.argv = [f'mmlt {verb}', *rest]  # the name in --help and errors
    result = module.main(rest)
    return result if isinstance(result, int) else None

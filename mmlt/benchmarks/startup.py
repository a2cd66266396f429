"""Seconds from the start of the process to the first training step of a config, phase by phase.

    python tools/benchmarks/startup.py CONFIG [--no-test] [any other argument of tools/train.py]

Nothing is kept: the training ends after its second step, and all stages are in a folder of their own. Run it twice: the
first run reads packages, weights and lists from the disk, and tokenises large corpora. Of a config with several stages
it is the first one that is trained, after the try of the others.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter


def parse_args() -> tuple[argparse.Namespace, list[str]]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config')
    parser.add_argument('--began', type=float, help=argparse.SUPPRESS)  # when the measured process was started
    return parser.parse_known_args()


class Phases:
    """Seconds by name, each without those of the phases inside it."""

    def __init__(self, began: float):
        self.began, self.seconds, self.open, self.over = began, Counter[str](), list[float](), False

    def wrap(self, owner, method: str, name: str) -> None:
        """Measure a method of a class, or a function of a module."""
        inner = getattr(owner, method)
        static = isinstance(owner.__dict__.get(method), (staticmethod, classmethod))

        def measured(*args, **kwargs):
            start = time.time()
            self.open.append(0.0)
            try:
                return inner(*args, **kwargs)
            finally:
                whole = time.time() - start
                inside = self.open.pop()
                if not self.over:
                    self.seconds[name] += whole - inside
                if self.open:
                    self.open[-1] += whole

        setattr(owner, method, staticmethod(measured) if static else measured)


class _Enough(BaseException):
    """The second step is made."""


def measure(began: float, arguments: list[str]) -> None:
    """Train in this process, and print the phases."""
    phases = Phases(began)
    from rich.console import Console
    from rich.table import Table

    from mmlt.cli.train import main as train
    from mmlt.engine import stages, training

    imported = time.time() - began
    training.read_config = stages.read_config = _without_shared_folders(training.read_config)
    steps = _watch(phases, training)
    try:
        with tempfile.TemporaryDirectory() as folder:
            train([*arguments, '--work-dir', folder, '--no-test'])
    except _Enough:
        pass
    rows = [('imports (Python, torch, MMPretrain, mmlt)', imported), *phases.seconds.items()]
    first = steps[0] - began
    rows.append(('the rest', first - sum(seconds for _, seconds in rows)))
    rows.append(('process start to the end of the first step', first))
    rows.append(('a step after that', steps[1] - steps[0]))
    table = Table('phase', 'seconds', title='start of a training', title_justify='left')
    table.columns[1].justify = 'right'
    for name, seconds in rows:
        table.add_row(name, f'{seconds:.2f}')
    Console().print(table)
    sys.stdout.flush()
    os._exit(0)  # workers are not waited for


def _without_shared_folders(read):
    """Earlier stages are below the work directory, where nothing is finished."""

    def run(*args):
        cfg = read(*args)
        for spec in (cfg.get('stages') or {}).values():
            spec.pop('work_dir', None)
        return cfg

    return run


def _wrap_phases(phases: Phases, training) -> None:
    """Measure the parts of a training's start."""
    from mmengine.runner import Runner

    from mmlt.engine.runner import Runner as OurRunner
    from mmlt.models.open_clip_towers import OpenCLIPTowers
    from mmlt.models.pretrainers import cvlp
    from mmlt.models.text import token_table

    for owner, method, name in (
        (training, 'read_training', 'config'),
        (training, 'check_arguments', 'names in the config'),
        (training, 'try_stages', 'a try of later stages'),
        (OurRunner, '_log_env', 'environment and config in the log'),
        (Runner, 'dump_config', 'environment and config in the log'),
        (OurRunner, 'build_model', 'model'),
        (OpenCLIPTowers, '__init__', 'towers'),
        (OurRunner, 'build_dataloader', 'data sets'),
        (Runner, 'build_optim_wrapper', 'optimizer'),
        (OpenCLIPTowers, 'load', 'pretrained weights'),
        (token_table, '_tokenize', 'tokenising'),
        (cvlp, 'encode_table', "teacher's sentences"),
        (Runner, 'call_hook', 'hooks'),
    ):
        phases.wrap(owner, method, name)


def _watch(phases: Phases, training) -> list[float]:
    """Measure the phases of a training; return the list that the ends of its steps come into."""
    import torch
    from mmengine.hooks import Hook
    from mmengine.runner import EpochBasedTrainLoop, IterBasedTrainLoop

    _wrap_phases(phases, training)
    steps: list[float] = []

    class Watch(Hook):
        priority = 'LOWEST'

        def before_train_iter(self, runner, batch_idx, data_batch=None):
            phases.over = bool(steps)
            if not steps:
                phases.seconds['workers and first batch'] += time.time() - self.ready

        def before_train_epoch(self, runner):
            self.ready = time.time()

        def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            steps.append(time.time())
            if len(steps) == 2:
                raise _Enough

    def watched(run):
        def begin(loop):
            loop.runner.register_hook(Watch())
            return run(loop)

        return begin

    for loop in (EpochBasedTrainLoop, IterBasedTrainLoop):
        phases.wrap(loop, 'run_iter', 'first step')
        loop.run = watched(loop.run)
    return steps


def main():
    args, others = parse_args()
    if args.began is not None:
        return measure(args.began, [args.config, *others])
    command = [sys.executable, '-m', 'mmlt', 'bench', 'startup', args.config, *others]
    return subprocess.run([*command, '--began', str(time.time())]).returncode

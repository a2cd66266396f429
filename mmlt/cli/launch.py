"""A verb in a process of its own, or in one a GPU."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from mmlt.errors import InputError


def launch(verb: str, config: str, arguments: Sequence[str] = (), processes: int = 1) -> None:
    """Run ``mmlt VERB CONFIG`` and wait for it.

    Args:
        verb (str): 'train' or 'test'.
        config (str): The config.
        arguments (Sequence[str]): More of them. Defaults to none.
        processes (int): How many work together. Defaults to 1.

    Raises:
        InputError: It failed; it has said why.
    """
    command = [sys.executable]
    if processes > 1:
        command += ['-m', 'torch.distributed.run', f'--nproc_per_node={processes}']
        command += [f'--master_port={os.environ.get("PORT", 29500)}']
        arguments = ['--launcher', 'pytorch', *arguments]
    command += ['-m', 'mmlt', verb, config, *arguments]
    here = str(Path(__file__).parents[2])  # in a clone that is not installed, too
    path = os.pathsep.join(part for part in (here, os.environ.get('PYTHONPATH')) if part)
    try:
        code = subprocess.run(command, env={**os.environ, 'PYTHONPATH': path}, check=False).returncode
    except KeyboardInterrupt:
        sys.exit(130)  # the process had it as well, and has said that it goes on
    if code:
        raise InputError(f'mmlt {verb} {config} ended with the exit code {code}; what is above says why.')

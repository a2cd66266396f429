"""Where the files of a run folder come from: ``provenance.json``."""

from __future__ import annotations

import json
import os.path as osp
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from mmlt.checkpoints import write_text
from mmlt.engine.paper_rows import commit, versions
from mmlt.errors import InputError

NAME = 'provenance.json'
_ASKED = ('config', 'seed', 'options')


class Provenance:
    """What was asked for in a run folder, and everything that was started for it.

    The file holds ``config`` (its name), ``seed``, ``options``, and ``steps``,
    one for each command: its ``name``, whether it is ``finished``, ``seconds``
    by the clock, ``commit`` (None outside of git), and ``versions`` of mmlt and
    what it stands on, with the ``device``. A command that was interrupted has
    a step of its own, one that was killed has none. It is written whole or not
    at all.

    Args:
        folder (str): The run folder.
        config (str): Name of the config.
        seed (int): Of the training.
        options (Sequence[str]): As for ``--cfg-options``. Defaults to none.

    Raises:
        InputError: The folder is that of another config, seed or options; its
            file is damaged.
    """

    def __init__(self, folder: str, config: str, seed: int, options: Sequence[str] = ()):
        self.path = osp.join(folder, NAME)
        self.asked = dict(config=config, seed=seed, options=list(options))
        self.steps = self._earlier()

    def _earlier(self) -> list[dict]:
        if not osp.isfile(self.path):
            return []
        try:
            with open(self.path, encoding='utf-8') as f:
                found = json.load(f)
            earlier = {key: found[key] for key in _ASKED}
            steps = list(found['steps'])
        except (ValueError, KeyError, TypeError) as e:
            raise InputError(f"'{self.path}' is damaged ({type(e).__name__}: {e}): remove the folder's run.") from e
        for key, value in earlier.items():
            if value != self.asked[key]:
                raise InputError(
                    f"'{osp.dirname(self.path)}' is a run with {key} {value}, and {self.asked[key]} is asked for: "
                    'give another --work-dir.'
                )
        return steps

    @property
    def trained(self) -> bool:
        """Whether a training was noted here that ran to its end."""
        return any(step['name'] == 'train' and step['finished'] for step in self.steps)

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Note a command that runs inside, also where it fails.

        Args:
            name (str): For example 'train'.
        """
        # Asked for before it runs: what is edited meanwhile is not what ran.
        start, found = time.time(), dict(commit=commit(), versions=versions())
        finished = False
        try:
            yield
            finished = True
        finally:
            seconds = round(time.time() - start, 1)
            self.steps.append(dict(name=name, finished=finished, seconds=seconds, **found))
            write_text(self.path, json.dumps({**self.asked, 'steps': self.steps}, indent=1))

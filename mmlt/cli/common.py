"""What all verbs share."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable

from mmlt.errors import InputError


def told(main: Callable) -> Callable:
    """A verb's ``main``, of which a wrong input ends in one sentence."""

    @functools.wraps(main)
    def run(argv=None):
        try:
            return main(argv)
        except InputError as e:
            sys.exit(f'mmlt: {e}')

    return run

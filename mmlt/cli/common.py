"""What all verbs share."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable

from mmlt.errors import InputError


def load_package() -> None:
    """Run ``mmlt/__init__.py``, which registers everything, if :mod:`mmlt_command` has left that for later."""
    package = sys.modules['mmlt']
    if not hasattr(package, '__all__'):
        package.__spec__.loader.exec_module(package)


def verb(parse: Callable) -> Callable[[Callable], Callable]:
    """Make the ``main`` of a verb from what it does with its arguments.

    A wrong input ends in one sentence. Nothing is imported that takes long
    before the command line is read, so a verb imports what it works with in
    its ``main``, or has it in a module of ``mmlt.cli.work``.

    Args:
        parse (Callable): Reads the command line; its result is what ``main``
            is called with.
    """

    def decorate(work: Callable) -> Callable:
        @functools.wraps(work)
        def main(argv=None):
            try:
                args = parse(argv)
                load_package()
                return work(args)
            except InputError as e:
                sys.exit(f'mmlt: {e}')

        return main

    return decorate

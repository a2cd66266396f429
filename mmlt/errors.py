"""The one error that means: what was given cannot be used, and here is what to change."""

from __future__ import annotations

import sys
from types import TracebackType


class InputError(ValueError):
    """A configuration, file or checkpoint that mmlt cannot use.

    The message is one sentence or two that name the thing and the remedy; the
    command line tools print it without a traceback.
    """


def _tell(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if issubclass(kind, InputError):
        print(f'mmlt: {error}', file=sys.stderr)
    else:
        sys.__excepthook__(kind, error, trace)


def tell_without_traceback() -> None:
    """Have a program that an :class:`InputError` ends, as MMPretrain's own tools may, say the sentence alone.

    A hook that somebody else has set stays.
    """
    if sys.excepthook is sys.__excepthook__:
        sys.excepthook = _tell

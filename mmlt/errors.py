"""The one error that means: what was given cannot be used, and here is what to change."""


class InputError(ValueError):
    """A configuration, file or checkpoint that mmlt cannot use.

    The message is one sentence or two that name the thing and the remedy; the
    command line tools print it without a traceback.
    """

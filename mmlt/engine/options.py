"""Settings on the command line."""

from __future__ import annotations

import argparse
import sys

from mmengine.config import DictAction


class at_least:
    """A whole number of an option, from a least one on: ``type=at_least(1)`` with :class:`ToolParser`."""

    def __init__(self, least: int):
        self.least = least
        self.__name__ = 'whole number'  # argparse says it of a text

    def __call__(self, text: str) -> int:
        """As ``int``; the parser compares."""
        return int(text)


class ToolParser(argparse.ArgumentParser):
    """The command line of a tool.

    A value that is given is never taken as one that is not: an empty text,
    as of a shell's variable that is not set, or a number below the least one
    of :class:`at_least` ends the tool with a sentence.

    Args:
        description (str): The tool's docstring, printed as it is.
    """

    def __init__(self, description: str, **kwargs):
        super().__init__(description=description, formatter_class=argparse.RawDescriptionHelpFormatter, **kwargs)

    def parse_args(self, args=None, namespace=None):
        """See argparse."""
        args = super().parse_args(args, namespace)
        for action in self._actions:
            value = getattr(args, action.dest, None)
            if isinstance(value, dict) or value is action.default:
                continue
            name = action.option_strings[-1] if action.option_strings else action.metavar or action.dest
            for own in value if isinstance(value, list) else [value]:
                if isinstance(own, str) and not own.strip():
                    sys.exit(f'mmlt: {name} is given and empty: give a value, or leave it out.')
                if isinstance(action.type, at_least) and own < action.type.least:
                    sys.exit(f'mmlt: {name} is {own}; give at least {action.type.least}.')
        return args


class CfgOptions(DictAction):
    """MMEngine's ``--cfg-options``, which keeps the spaces of a text.

    ``templates="a photo of the {}"`` stays as it is; MMEngine's own action
    would make it ``aphotoofthe{}`` without a word.
    """

    @staticmethod
    def _parse_iterable(val: str):
        text = val.strip('\'"')
        if ' ' in text and not any(c in text for c in '[](),'):
            return text
        return DictAction._parse_iterable(val)

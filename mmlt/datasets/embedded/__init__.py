"""Data sets made of what comes with packages of PyPI: nothing is downloaded."""

from .mnist_lt import MNISTLT
from .multi_label_digits import MultiLabelDigits
from .named_icons import NamedIcons
from .printed_characters import PrintedCharacters
from .twemoji_lt import TwemojiLT

__all__ = ['MNISTLT', 'MultiLabelDigits', 'NamedIcons', 'PrintedCharacters', 'TwemojiLT']

"""Settings on the command line, which is read before torch and the MM packages are imported: nothing of them here."""

from __future__ import annotations

import argparse
import ast
import re
import sys
from collections.abc import Sequence
from dataclasses import MISSING, dataclass, field, fields
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Options = TypeVar('Options', bound='DataclassInstance')

# As MMEngine reads them.
_NAMES = {'true': True, 'false': False}

# Not '{stage:phase_a}', which stands for a folder: keys of a dict have quotes, or are numbers.
_NO_TEXT = re.compile(r'[\[(d]|\{\s*[\'"\d]')


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

    def parse_options(self, kind: type[Options], argv: Sequence[str] | None = None) -> Options:
        """Read the fields of a dataclass from the command line.

        Args:
            kind (type): Of fields by :func:`option`.
            argv (Sequence[str], optional): The words. Defaults to None, those
                of the command line.

        Returns:
            Options: An instance.
        """
        for one in fields(kind):
            words = dict(one.metadata)
            names = words.pop('names') or ('--' + one.name.replace('_', '-'),)
            if one.default is False:
                words['action'] = 'store_true'
            elif one.default is MISSING:
                names = (one.name,)
            else:
                words['default'] = one.default
            self.add_argument(*names, **words)
        return kind(**vars(self.parse_args(argv)))


def option(help: str | None = None, default: Any = None, names: Sequence[str] = (), **words) -> Any:
    """A field of a dataclass that is an argument on the command line as well.

    Args:
        help (str, optional): What the argument says. Defaults to None.
        default: Its value where it is not given; ``MISSING`` makes it
            required, False a flag. Defaults to None.
        names (Sequence[str]): On the command line. Defaults to that of the
            field.
        **words: See argparse's ``add_argument``.

    Returns:
        Field: See dataclasses.
    """
    return field(default=default, metadata=dict(words, help=help, names=names))


class CfgOptions(argparse.Action):
    """MMEngine's ``--cfg-options``, which keeps the spaces of a text and reads dicts.

    ``templates="a photo of the {}"`` stays as it is; MMEngine's own action
    would make it ``aphotoofthe{}`` without a word. Components are given as in a
    config: ``custom_hooks="[dict(type='EMAHook', momentum=0.001)]"``; so are
    ``{'type': 'EMAHook'}`` and, where the shell took the quotes,
    ``[dict(type=EMAHook)]``.
    """

    def __call__(self, parser, namespace, values, option_string=None):
        """See MMEngine; what cannot be read ends in a sentence."""
        from mmengine.config import DictAction

        for value in values or ():
            if not re.match(r'[^=\s]+=', value):
                raise argparse.ArgumentError(self, f"'{value}' is not like key=value.")
            try:
                DictAction.__call__(self, parser, namespace, [value], option_string)
            except (AssertionError, RecursionError, SyntaxError, ValueError) as e:
                raise argparse.ArgumentError(
                    self,
                    f'the value of {value.split("=")[0]} cannot be read ({str(e)[:100]}): give it as in a config, for '
                    'example "key=[dict(type=\'X\', a=1)]", and texts with commas or brackets in quotes.',
                ) from e

    @staticmethod
    def _parse_iterable(val: str):
        from mmengine.config import DictAction

        text = val.strip()
        if len(text) > 1 and text[0] == text[-1] and text[0] in '\'"':
            text = text[1:-1].strip()
        has_dict = re.search(r'\bdict\s*\(', text) is not None
        if re.match(r'[\[({]|dict\s*\(', text) and (has_dict or re.search(r'[\'"{]', text)):
            try:
                node = ast.parse(text, mode='eval').body
            except SyntaxError:
                if has_dict:
                    raise
            else:
                if isinstance(node, (ast.Call, ast.Dict, ast.List, ast.Tuple)) and _NO_TEXT.match(text):
                    return _literal(node, text)
        text = text.strip('\'"')
        if ' ' in text and not any(c in text for c in '[](),'):
            return text
        return DictAction._parse_iterable(val)


@dataclass
class RunOptions:
    """What can be said of a run beside its config, of any kind of run."""

    config: str = option('file or name of the config', MISSING)
    work_dir: str | None = option('where logs and results go; default work_dirs/<config name>')
    cfg_options: dict | None = option(
        'settings to override, key=value; of a training also stages.<name>.options.<key>=<value>, for an earlier stage',
        nargs='+',
        action=CfgOptions,
    )
    amp: bool = option('automatic mixed precision, in every stage', False)
    no_pin_memory: bool = option('no pinned memory in dataloaders', False)
    launcher: str = option('job launcher', 'none', choices=('none', 'pytorch', 'slurm', 'mpi'))
    local_rank: int = option(default=0, names=('--local_rank', '--local-rank'), type=int)


@dataclass
class TrainOptions(RunOptions):
    """What can be said of a training beside its config: the arguments of ``mmlt train``."""

    resume: str | None = option(
        'resume from this checkpoint, or from the latest of the work directory, even if the config changed',
        nargs='?',
        const='auto',
    )
    restart: list[str] | None = option(
        'train anew what was trained in the work directory; names of stages, default the last one',
        nargs='*',
        metavar='STAGE',
    )
    no_validate: bool = option('no validation while training', False)
    no_trial: bool = option('no try of a step of later stages before the first', False)
    no_test: bool = option('no test at the end', False)
    auto_scale_lr: bool = option('scale learning rates to the actual batch size', False)
    no_persistent_workers: bool = option('no persistent dataloader workers', False)


@dataclass
class TestOptions(RunOptions):
    """What can be said of a test beside its config: the arguments of ``mmlt test``."""

    __test__ = False  # for pytest, which collects by the name

    checkpoint: str | None = option(
        'checkpoint file; without it the pretrained model is tested', names=('checkpoint',), nargs='?'
    )
    out: str | None = option('file for predictions or metrics')
    out_item: str | None = option('what goes into --out; default pred', choices=('metrics', 'pred'))
    save_logits: str | None = option('.npz for all scores, see mmlt posthoc', metavar='FILE')
    show_dir: str | None = option('folder for pictures of the predictions')
    show: bool = option('show the predictions in a window', False)
    interval: int = option('visualise every n-th sample', 1, type=at_least(1))
    wait_time: float = option('seconds to show each', 2, type=float)
    tta: bool = option('test-time augmentation, flips by default', False)


def _literal(node: ast.expr, text: str):
    """The value of an expression of dicts, lists and constants; anything else in it is a text."""
    if isinstance(node, ast.Constant):
        return node.value
    if isinstance(node, (ast.List, ast.Tuple)):
        values = [_literal(part, text) for part in node.elts]
        return values if isinstance(node, ast.List) else tuple(values)
    if isinstance(node, ast.Dict) and node.keys and None not in node.keys:
        return {_literal(key, text): _literal(value, text) for key, value in zip(node.keys, node.values)}
    if isinstance(node, ast.Call):
        plainly = isinstance(node.func, ast.Name) and node.func.id == 'dict' and not node.args
        if plainly and all(k.arg for k in node.keywords):
            return {k.arg: _literal(k.value, text) for k in node.keywords}
        raise ValueError(f"'{ast.get_source_segment(text, node)}' is no value")
    source = ast.get_source_segment(text, node)
    if isinstance(node, ast.UnaryOp) and isinstance(node.operand, ast.Constant):
        return ast.literal_eval(node)  # a negative number
    return _NAMES.get(source, source)  # '{}' too, the prompt of a class's bare name

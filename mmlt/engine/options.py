"""Settings on the command line."""

from __future__ import annotations

from mmengine.config import DictAction


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

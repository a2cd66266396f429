"""Text files as people and spreadsheets save them: UTF-8, UTF-16 or GBK."""

from __future__ import annotations

import codecs
import json
import re

from mmengine.fileio import get

from mmlt.errors import InputError

# One Chinese character beside a small Latin letter: so an accented letter looks if Latin-1 is read as GBK ('Gr鲞e').
_MISREAD = re.compile(r'(?<=[a-z])[\u4e00-\u9fff](?![\u4e00-\u9fff])|(?<![\u4e00-\u9fff])[\u4e00-\u9fff](?=[a-z])')


def decode(data: bytes, where: str, strict: bool = False) -> str:
    """Text from UTF-8, UTF-16 with a byte order mark (Excel's "Unicode text"), or else GBK.

    UTF-8 and GBK are the two encodings of VL-LTR's published corpus.

    Args:
        data (bytes): A file's content.
        where (str): The file's name, for the error.
        strict (bool): Refuse what reads as GBK, but looks like Latin-1: names
            must not be guessed wrong. Defaults to False.

    Returns:
        str: The text.

    Raises:
        InputError: It is none of them; names the file and the byte.
    """
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        try:
            return data.decode('utf-16')
        except UnicodeDecodeError as e:
            raise InputError(f"'{where}' begins as UTF-16 and is damaged: {e.reason}. Save it as UTF-8.") from e
    try:
        return data.decode('utf-8-sig')
    except UnicodeDecodeError as e:
        try:
            text = data.decode('gb18030')
        except UnicodeDecodeError as f:
            # The right one of the two encodings gets further; a byte order mark is cut off before positions count.
            at = max(e.start + len(data) - len(e.object), f.start)
            raise InputError(
                f"'{where}' is neither UTF-8 nor GBK: byte {at + 1} is 0x{data[at]:02x}. Save it as UTF-8."
            ) from e
        if strict and (found := _MISREAD.search(text)):
            word = text[max(0, found.start() - 10) : found.end() + 10].split()
            raise InputError(
                f"'{where}' is not UTF-8, and as GBK it would have '{' '.join(word)}', which looks like another "
                'encoding: save it as UTF-8.'
            ) from e
        return text


def read_text(path: str) -> str:
    """A list, table or JSON file as text, see :func:`decode`; line breaks are as they are."""
    return decode(get(path), path, strict=True)


def read_lines(path: str) -> list[str]:
    """Lines of :func:`read_text`, without their ends."""
    return [line.rstrip('\r') for line in read_text(path).split('\n')]


def read_json(path: str):
    """Content of a JSON file.

    Args:
        path (str): The file.

    Raises:
        InputError: It is not valid JSON; names the line.
    """
    try:
        return json.loads(read_text(path))
    except json.JSONDecodeError as e:
        raise InputError(f"'{path}' is not valid JSON: {e}.") from e

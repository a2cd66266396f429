"""Text files as people and spreadsheets save them: UTF-8, UTF-16 or GBK."""

from __future__ import annotations

import codecs
import json
import re

from mmengine.fileio import get, get_file_backend

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


def is_file(path: str) -> bool:
    """Whether a file is there, by the backend of its address; one that cannot tell (HTTP) is believed."""
    backend = get_file_backend(path, enable_singleton=True)
    return backend.isfile(path) if hasattr(backend, 'isfile') else True


def read_text(path: str, strict: bool = True) -> str:
    """A list, table, article or JSON file as text; line breaks are as they are.

    Args:
        path (str): The file, or its address.
        strict (bool): See :func:`decode`. Defaults to True.

    Raises:
        InputError: It cannot be read, or is no text.
    """
    try:
        data = get(path)
    except OSError as e:
        raise InputError(f"'{path}' cannot be read ({type(e).__name__}: {e}).") from e
    return decode(data, path, strict)


def read_lines(path: str) -> list[str]:
    """Lines of :func:`read_text`, without their ends: those of Unix, Windows, or an old Mac."""
    return re.split(r'\r\n|\n|\r', read_text(path))


def read_json(path: str):
    """Content of a JSON file.

    Args:
        path (str): The file.

    Raises:
        InputError: It is not valid JSON, names the line; is nested without
            end; has a number that is none (NaN), or a key twice in one object,
            of which Python would keep the last.
    """

    def no_number(constant: str):
        raise InputError(f"'{path}' has {constant}, which is no number of JSON: write a finite one, or null.")

    def unique(pairs: list[tuple]) -> dict:
        if len(found := dict(pairs)) < len(pairs):
            twice = next(key for key in found if sum(key == other for other, _ in pairs) > 1)
            raise InputError(f"'{path}' has the key '{twice[:80]}' twice in one object: remove or rename one.")
        return found

    try:
        return json.loads(read_text(path), object_pairs_hook=unique, parse_constant=no_number)
    except RecursionError as e:
        raise InputError(f"'{path}' is nested too deep to be data of this kind.") from e
    except json.JSONDecodeError as e:
        raise InputError(
            f"'{path}' is not valid JSON ({e}): correct it, or fetch it anew, since a download may be incomplete."
        ) from e


def read_numbers(path: str) -> list[int]:
    """Whole numbers of a text file, one a line."""
    numbers = []
    for i, line in enumerate(read_lines(path), 1):
        if line.strip():
            try:
                numbers.append(int(line))
            except ValueError as e:
                raise InputError(
                    f"'{path}', line {i}: '{line.strip()[:80]}' is none: there must be one whole number a line."
                ) from e
    return numbers

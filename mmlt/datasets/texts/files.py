"""Text files as people and spreadsheets save them: UTF-8, UTF-16 or GBK; tables with any of the usual delimiters."""

from __future__ import annotations

import codecs
import csv
import io
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

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
        raise InputError(f"'{path}' is not valid JSON ({e}): the download may be incomplete.") from e


# What an entry of a list in JSON may have in a field, and how to call it.
_ID = ((int, str), 'an id: a whole number or a text')
ENTRY_FIELDS = {
    'id': _ID,
    'image_id': _ID,
    'category_id': _ID,
    'file_name': ((str,), 'a text'),
    'name': ((int, str), 'a text'),
    'area': ((int, float), 'a number'),
    'bbox': ((list,), 'a list of numbers'),
}


def json_entries(path: str, table, key: str, fields: Sequence[str]) -> list[dict]:
    """A list of objects in a JSON file of images, annotations and categories, checked.

    Args:
        path (str): The file's name, for errors.
        table (dict): Its content.
        key (str): Which list.
        fields (Sequence[str]): What every entry must have, of
            ``ENTRY_FIELDS``. An ``id`` may be there once only.

    Returns:
        list[dict]: The entries.

    Raises:
        InputError: There is no such list, an entry lacks a field or has
            another thing in it, or an id comes twice; names it.
    """
    found = table.get(key) if isinstance(table, dict) else None
    if not isinstance(found, list):
        raise InputError(
            f"'{path}' has no list '{key}': it needs the lists images, annotations and categories (the published "
            'test split has no labels).'
        )
    first: dict = {}
    for i, entry in enumerate(found, 1):
        for field in fields:
            if not isinstance(entry, dict) or field not in entry:
                raise InputError(f"'{path}', {key}, entry {i} has no '{field}'.")
            kinds, what = ENTRY_FIELDS[field]
            if type(entry[field]) not in kinds:
                raise InputError(f"'{path}', {key}, entry {i}: '{field}' is {entry[field]!r:.80}, but must be {what}.")
        if 'id' in fields and first.setdefault(entry['id'], i) != i:
            raise InputError(
                f"'{path}', {key}: the entries {first[entry['id']]} and {i} have the same id {entry['id']!r:.80}."
            )
    return found


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


@dataclass
class Table:
    """A table with a header, see :func:`read_table`.

    Args:
        path (str): Its file.
        header (list[str]): Names of the columns without surrounding space.
        rows (list[list[str | None]]): Fields without surrounding space, as
            many a row as the header has; None where a row ended before.
        lines (list[int]): The last line of every row in the file.
    """

    path: str
    header: list[str]
    rows: list[list[str | None]]
    lines: list[int]

    def where(self, i: int) -> str:
        """Place of row i, for errors."""
        return f"'{self.path}', line {self.lines[i]}"

    def column(self, name: str) -> int | None:
        """Place of a column by its name in any case, None where there is none.

        Raises:
            InputError: There are several.
        """
        places = [i for i, own in enumerate(self.header) if own.lower() == name.lower()]
        if len(places) > 1:
            raise InputError(f"'{self.path}' has the column '{name}' {len(places)} times: remove all but one.")
        return places[0] if places else None

    def select(self, *names: str) -> Iterator[tuple[str, dict[str, str]]]:
        """Every row's place in words, and its fields in these columns as far as they are there; '' for a blank."""
        places = {name: place for name in names if (place := self.column(name)) is not None}
        for i, row in enumerate(self.rows):
            yield self.where(i), {name: row[place] or '' for name, place in places.items()}


# Spreadsheets write a semicolon where the comma is decimal, whatever the file's name ends with.
_DELIMITERS = {',': 'a comma', ';': 'a semicolon', '\t': 'a tab', '|': "a '|'"}


def read_table(path: str, needed: Sequence[str]) -> Table:
    """Read a table with a header, as spreadsheets and pandas write it.

    Its columns are divided by comma, semicolon, tab or ``|``: what finds the
    needed ones in the first line and divides it most, or what Excel's line
    ``sep=;`` before it says. A field with a delimiter or a line break stands
    in quotation marks. Empty rows are skipped.

    Args:
        path (str): The file, in an encoding of :func:`decode`.
        needed (Sequence[str]): Columns that it must have, in any case.

    Returns:
        Table: All of it.

    Raises:
        InputError: It cannot be read; a needed column is missing, or there
            twice; there are no rows; a row has more fields than the header;
            names the line.
    """
    text = read_text(path)
    start = len(text) - len(text.lstrip('\r\n '))
    first = re.match(r'[^\r\n]*', text[start:])[0]
    if told := re.fullmatch(rf'"?sep=([{"".join(_DELIMITERS)}])"?,*', first.rstrip(' ')):
        start, delimiter = start + len(first), told[1]
    else:
        delimiter = _delimiter(first, needed, path)
    skipped = len(re.findall(r'\r\n|\n|\r', text[:start]))
    csv.field_size_limit(2**31 - 1)  # an article is longer than the 131,072 characters that it allows
    reader = csv.reader(io.StringIO(text[start:], newline=''), delimiter=delimiter, skipinitialspace=delimiter != '\t')
    table = Table(path, [], [], [])
    try:
        for row in reader:
            if any(row := [field.strip() for field in row]):
                _add(table, row, reader.line_num + skipped, _DELIMITERS[delimiter])
    except csv.Error as e:
        raise InputError(
            f"'{path}', line {reader.line_num + skipped}: {e}. Long texts go into a folder of .txt files, or into JSON."
        ) from e
    _check_columns(table, needed)
    return table


def _delimiter(first: str, needed: Sequence[str], path: str) -> str:
    def fitness(delimiter: str) -> tuple:
        names = [name.strip().lower() for name in next(csv.reader([first], delimiter=delimiter), ())]
        return sum(name.lower() in names for name in needed), len(names), delimiter == '\t' and path.endswith('.tsv')

    return max(_DELIMITERS, key=fitness)  # of equal ones the first


def _add(table: Table, row: list[str], line: int, delimiter: str) -> None:
    """The first row is the header."""
    while row and not row[-1] and (not table.header or len(row) > len(table.header)):
        row.pop()  # what a spreadsheet leaves of deleted columns
    if not table.header:
        table.header.extend(row)
        return
    if len(row) > len(table.header):
        raise InputError(
            f"'{table.path}', line {line}: {len(row)} values, but the header has {len(table.header)} columns; a text "
            f'with {delimiter} has to stand in quotation marks.'
        )
    table.rows.append(row + [None] * (len(table.header) - len(row)))
    table.lines.append(line)


def _check_columns(table: Table, needed: Sequence[str]) -> None:
    if missing := [name for name in needed if table.column(name) is None]:
        columns = ', '.join(f"'{name}'" for name in table.header[:5]) or 'none'
        more = f' and {len(table.header) - 5} more' if len(table.header) > 5 else ''
        picture = any(re.search(r'\.(jpe?g|png|bmp|webp|tiff?|gif)$', name.lower()) for name in table.header)
        raise InputError(
            f"'{table.path}' has no column '{missing[0]}', but {columns}{more}: its first line must name the columns, "
            f'{",".join(needed)}.{" Its first line names a picture: there is no header." if picture else ""}'
        )
    if not table.rows:
        raise InputError(f"'{table.path}' has a header but no rows.")

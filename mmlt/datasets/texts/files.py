"""Tables with any of the usual delimiters, and lists in JSON, checked."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from mmlt.datasets.pictures import is_picture
from mmlt.errors import InputError
from mmlt.utils.text_files import read_text

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


TABLE_SUFFIXES = ('.csv', '.tsv')

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
        picture = any(map(is_picture, table.header))
        raise InputError(
            f"'{table.path}' has no column '{missing[0]}', but {columns}{more}: its first line must name the columns, "
            f'{",".join(needed)}.{" Its first line names a picture: there is no header." if picture else ""}'
        )
    if not table.rows:
        raise InputError(f"'{table.path}' has a header but no rows.")

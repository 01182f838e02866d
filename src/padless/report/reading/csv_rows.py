"""Tables separated by commas, semicolons or tabs: one column, of integers (lengths) or of text (words)."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable
from itertools import chain, islice, repeat
from operator import itemgetter

from ...errors import UsageError
from .collected import Collected, column_index, integer_of, is_integer, is_number, shown
from .source import LONGEST_LINE

__all__ = ["names_of_table", "read_csv"]

_DELIMITERS = {",": "commas", ";": "semicolons", "\t": "tabs"}
_QUOTED = re.compile(r'"(?:[^"]|"")*"')
_ROWS = 1 << 14  # per batch


def read_csv(
    lines: Iterable[str], collected: Collected, column: str | None, *, words: bool, delimiter: str | None
) -> None:
    """Add one length per row. The first row has the column names, unless it is a single number.

    Args:
        lines: including line ends.
        collected: where the lengths go.
        column: the name of the column; not needed if there is only one.
        words: count words even if an integer would be a length.
        delimiter: between cells; None: the comma, semicolon or tab in the first line.

    Raises:
        UsageError: the column does not exist, or there are several and none is named; a first line with two kinds of
            delimiters.
        LengthsError: a cell of another kind than those before it, a negative length, or a malformed row.
    """
    if words:
        collected.unit = "words"
    if delimiter is None:
        lines = iter(lines)
        blank, head = next(((i, line) for i, line in enumerate(lines) if line.strip()), (0, ""))
        delimiter = _delimiter(head, collected)
        lines = chain(repeat("\n", blank), [head], lines)
    before = csv.field_size_limit(LONGEST_LINE)  # global to the process; restored below
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    try:
        first = next(filter(None, reader), None)
        if first is None:
            return
        if column is None and len(first) == 1 and is_number(first[0]):
            place = 0
            _add(_Batch([first], reader.line_num - _lines(first)), place, 1, words, collected)
        else:
            place = column_index(first, column, collected.source)
            collected.column = first[place]
        done = reader.line_num
        while rows := list(islice(reader, _ROWS)):
            _add(_Batch(rows, done), place, len(first), words, collected)
            done = reader.line_num
    except csv.Error as error:
        raise collected.error(f"line {reader.line_num}", f"{error} (is a quote left open?)") from None
    finally:
        csv.field_size_limit(before)


def names_of_table(lines: Iterable[str], *, is_cut: bool) -> list[str] | None:
    """The first row, if these lines are a table of several columns rather than text; else None.

    That is certain enough if all rows have as many cells, and one column has a name and below it only numbers.

    Args:
        lines: the first ones of a file.
        is_cut: whether the last row may be incomplete.
    """
    lines = [line for line in lines if line.strip()]
    delimiter = next((each for each in _DELIMITERS if lines and each in lines[0]), ",")
    try:
        rows = list(csv.reader(lines, delimiter=delimiter))
    except csv.Error:
        return None
    if is_cut:
        rows.pop()
    if len(rows) < 2 or len(rows[0]) < 2 or len(set(map(len, rows))) > 1:
        return None
    columns = zip(*rows, strict=True)
    is_table = any(
        name.strip() and not is_number(name) and all(map(is_number, cells)) for name, *cells in columns
    )
    return rows[0] if is_table else None


def _delimiter(line: str, collected: Collected) -> str:
    """The delimiter of a table, by its first line; a comma if it has none."""
    bare = _QUOTED.sub("", line)
    found = [delimiter for delimiter in _DELIMITERS if delimiter in bare]
    if len(found) > 1:
        names = " and ".join(_DELIMITERS[delimiter] for delimiter in found)
        raise UsageError(
            f"{collected.source}: the first line has {names}, so the column separator is ambiguous; quote the "
            f"cells that contain them (--format tsv: separated by tabs, --format txt: count words per line)"
        )
    if found and found != [","]:
        collected.note = f"separated by {_DELIMITERS[found[0]]}"
    return found[0] if found else ","


class _Batch:
    """Rows that are not blank, and their line numbers, which are only computed if needed."""

    def __init__(self, rows: list[list[str]], lines_before: int) -> None:
        self.all = rows
        self.rows = [cells for cells in rows if cells] if [] in rows else rows
        self.lines_before = lines_before

    def line(self, i: int) -> str:
        """The line number at which row `i` ends."""
        line = self.lines_before
        for cells in self.all:
            line += _lines(cells)
            i -= bool(cells)
            if i < 0:
                break
        return f"line {line}"


def _lines(cells: list[str]) -> int:
    """The number of lines of a row: quoted cells may contain line ends."""
    return 1 + sum(cell.count("\n") for cell in cells)


def _add(batch: _Batch, place: int, width: int, words: bool, collected: Collected) -> None:
    if set(map(len, batch.rows)) - {width}:
        i, cells = next((i, cells) for i, cells in enumerate(batch.rows) if len(cells) != width)
        raise collected.error(batch.line(i), f"{len(cells)} cells, but the first row has {width}")
    column = list(map(itemgetter(place), batch.rows))
    if collected.unit is None:
        first = next((cell for cell in column if cell.strip()), "")
        collected.unit = "lengths" if is_number(first) else "words"
    if collected.unit == "lengths":
        collected.add_numbers(_numbers(column, batch, collected), batch.line)
        return
    counts = [len(cell.split()) for cell in column]
    if not words and 1 in counts:
        for i, (count, cell) in enumerate(zip(counts, column, strict=True)):
            if count == 1 and is_integer(cell):
                what = f"{shown(cell.strip())} is an integer among words (--words counts it as a word)"
                raise collected.error(batch.line(i), what)
    collected.add(counts)


def _numbers(column: list[str], batch: _Batch, collected: Collected) -> list[int]:
    text = "".join(column)
    if text.isascii() and "_" not in text:  # `int` also accepts other digits and `1_000`
        try:
            return list(map(int, column))
        except ValueError:
            pass
    numbers = []
    for i, cell in enumerate(column):
        if is_integer(cell):
            numbers.append(integer_of(cell))
        elif is_number(cell) and float(cell).is_integer():  # how integer columns with gaps are often written
            numbers.append(int(float(cell)))
        elif is_number(cell) or not cell.strip():
            raise collected.error(batch.line(i), f"{shown(cell.strip())} is not a whole number")
        else:
            what = f"{shown(cell.strip())} is not an integer, but lengths precede it (--words counts words)"
            raise collected.error(batch.line(i), what)
    return numbers

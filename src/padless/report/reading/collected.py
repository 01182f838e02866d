"""The lengths read so far, four bytes each and all of one kind, and errors about them."""

from __future__ import annotations

import re
from array import array
from collections.abc import Callable, Sequence
from typing import NoReturn

from ...errors import LengthsError, UsageError
from ...options import MOST, near

__all__ = [
    "Collected",
    "column_index",
    "columns_text",
    "integer_of",
    "is_integer",
    "is_number",
    "printable",
    "shown",
]

_INTEGER = re.compile(r"\s*[+-]?[0-9]+\s*", re.ASCII)
_NUMBER = re.compile(
    r"\s*[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?\s*|\s*[+-]?(?:nan|inf)\s*", re.I
)
_NAMED = 12  # columns that an error lists


class Collected:
    """The lengths read so far.

    values: `array("i")` of them.
    unit: what was counted: `"lengths"` (nothing: the numbers are lengths), `"words"` or `"items"`.
    source: the name of the source in error messages.
    column: the name of the column, if there is one.
    note: how the file was read, if that is ambiguous; reports show it in their title.
    """

    def __init__(self, source: str) -> None:
        self.source = source
        self.values = array("i")
        self.unit: str | None = None
        self.column: str | None = None
        self.note: str | None = None

    def add(self, counts: Sequence[int]) -> None:
        """Add lengths that were counted here and so need no check."""
        try:
            self.values.extend(counts)
        except OverflowError:
            raise LengthsError(f"{self.source}: a sequence has more than {MOST:,} parts") from None

    def add_numbers(self, numbers: Sequence[int], place: Callable[[int], str]) -> None:
        """Add lengths given as numbers; `place(i)` names the position of the i-th.

        Raises:
            LengthsError: one is negative or over `MOST`.
        """
        if numbers and not (min(numbers) >= 0 and max(numbers) <= MOST):
            i = next(i for i, number in enumerate(numbers) if not 0 <= number <= MOST)
            self.refuse_number(numbers[i], place(i))
        self.values.extend(numbers)

    def refuse_number(self, number: int, place: str) -> NoReturn:
        """Raise LengthsError: the number is negative or over `MOST`."""
        if number < 0:
            raise self.error(place, f"{shown(number)} is negative")
        raise self.error(place, f"{shown(number)} is over {MOST:,}; are these lengths?")

    def error(self, place: str, what: str) -> LengthsError:
        """An error about what is wrong at a place."""
        return LengthsError(f"{self.source}, {place}: {what}")


def is_integer(text: str) -> bool:
    """Whether `text` is one decimal integer, possibly surrounded by blanks."""
    return _INTEGER.fullmatch(text) is not None


def integer_of(text: str) -> int:
    """`text` as an integer; one of about the same size if it has too many digits for Python."""
    text = text.strip()
    if len(text) > 4000:
        return (-1 if text.startswith("-") else 1) * 10 ** len(text)
    return int(text)


def is_number(text: str) -> bool:
    """Whether `text` is one number, integer or not."""
    return _NUMBER.fullmatch(text) is not None


def shown(value: object) -> str:
    """`value` for error messages: numbers as they are, anything else quoted, long values shortened."""
    if isinstance(value, int) and value.bit_length() > 200:
        return f"a number of about {value.bit_length() * 3 // 10:,} digits"
    text = str(value) if isinstance(value, (int, float)) else repr(value)
    return text if len(text) <= 40 else text[:36] + " ..."


def printable(text: str) -> str:
    """`text` with line ends and non-printable characters escaped, so that messages stay on one line."""
    return text if text.isprintable() else repr(text)[1:-1]


def column_index(names: Sequence[str], column: str | None, source: str) -> int:
    """The index of the wanted column, or of the only one if None is wanted.

    Raises:
        UsageError: there are several and none is wanted, or not exactly one of that name.
    """
    if column is None:
        if len(names) == 1:
            return 0
        if not names:
            raise UsageError(f"{source} has no columns")
        raise UsageError(
            f"{source} has {len(names)} columns; choose one with --column: {columns_text(names)}"
        )
    if names.count(column) > 1:
        raise UsageError(f"{source} has {names.count(column)} columns {column!r}")
    if column not in names:
        raise UsageError(f"{source} has no column {column!r}; there are {columns_text(names, column)}")
    return names.index(column)


def columns_text(columns: Sequence[str], wanted: str | None = None) -> str:
    """The names of the existing columns, and the closest match to the wanted one."""
    names = ", ".join(map(printable, columns[:_NAMED]))
    if len(columns) > _NAMED:
        names += f" and {len(columns) - _NAMED} more"
    return names + (near(wanted, columns) if wanted else "")

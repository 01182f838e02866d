"""The lengths read so far, four bytes each and all of one kind, and the errors about them."""

from __future__ import annotations

import re
from array import array
from collections.abc import Callable, Sequence
from typing import NoReturn

from ...errors import LengthsError
from ...options import near

__all__ = ["Collected", "columns_text", "integer_of", "is_integer", "is_number", "printable", "shown"]

# No tensor on earth has a sequence of more steps, but columns of ids and of times in nanoseconds do get here by
# mistake. It also keeps every sum and product over the lengths inside 64 bits.
MOST = 2**31 - 1

_INTEGER = re.compile(r"\s*[+-]?[0-9]+\s*", re.ASCII)
_NUMBER = re.compile(
    r"\s*[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?\s*|\s*[+-]?(?:nan|inf)\s*", re.I
)
_NAMED = 12  # columns that an error lists


class Collected:
    """The lengths read so far.

    values: `array("i")` of them.
    unit: what was counted: `"lengths"` (nothing: the numbers were the lengths), `"words"` or `"items"`.
    source: how errors call where they come from.
    column: the name of the column, where there is one.
    note: how the file was understood, where it could be understood otherwise; reports show it in their title.
    """

    def __init__(self, source: str) -> None:
        self.source = source
        self.values = array("i")
        self.unit: str | None = None
        self.column: str | None = None
        self.note: str | None = None

    def add(self, counts: Sequence[int]) -> None:
        """More lengths that were counted here, so cannot be wrong."""
        try:
            self.values.extend(counts)
        except OverflowError:
            raise LengthsError(f"{self.source}: a sequence has more than {MOST:,} parts") from None

    def add_numbers(self, numbers: Sequence[int], place: Callable[[int], str]) -> None:
        """More lengths as they were given; `place(i)` names the position of the i-th.

        Raises:
            LengthsError: one is negative or over `MOST`.
        """
        if numbers and not (min(numbers) >= 0 and max(numbers) <= MOST):
            i = next(i for i, number in enumerate(numbers) if not 0 <= number <= MOST)
            self.refuse_number(numbers[i], place(i))
        self.values.extend(numbers)

    def refuse_number(self, number: int, place: str) -> NoReturn:
        """Raise LengthsError: this one is negative, or else over `MOST`."""
        if number < 0:
            raise self.error(place, f"{shown(number)} is negative")
        raise self.error(place, f"{shown(number)} is over {MOST:,}; are these lengths?")

    def error(self, place: str, what: str) -> LengthsError:
        """What is wrong at a place, for raising."""
        return LengthsError(f"{self.source}, {place}: {what}")


def is_integer(text: str) -> bool:
    """Whether `text` is one decimal integer, with blanks around it or not."""
    return _INTEGER.fullmatch(text) is not None


def integer_of(text: str) -> int:
    """The integer that `text` is; where it has too many digits for Python to read, one of about that size."""
    text = text.strip()
    if len(text) > 4000:
        return (-1 if text.startswith("-") else 1) * 10 ** len(text)
    return int(text)


def is_number(text: str) -> bool:
    """Whether `text` is one number, whole or not."""
    return _NUMBER.fullmatch(text) is not None


def shown(value: object) -> str:
    """`value` as an error shows it: a number as it is, anything else in quotes, and never long."""
    if isinstance(value, int) and value.bit_length() > 200:
        return f"a number of about {value.bit_length() * 3 // 10:,} digits"
    text = str(value) if isinstance(value, (int, float)) else repr(value)
    return text if len(text) <= 40 else text[:36] + " ..."


def printable(text: str) -> str:
    """`text` with escapes for line ends and whatever else a terminal does not show: messages are one line."""
    return text if text.isprintable() else repr(text)[1:-1]


def columns_text(columns: Sequence[str], wanted: str | None = None) -> str:
    """The names of the columns there are, and the nearest to the one that was wanted."""
    names = ", ".join(map(printable, columns[:_NAMED]))
    if len(columns) > _NAMED:
        names += f" and {len(columns) - _NAMED} more"
    return names + (near(wanted, columns) if wanted else "")

"""JSON lines and JSON arrays: a number is a length, a string is counted in words, a list in items."""

from __future__ import annotations

import json
from collections.abc import Iterable
from itertools import islice
from typing import Any

from ...errors import LengthsError, UsageError
from .collected import Collected, columns_text, shown

__all__ = ["read_json", "read_json_lines"]

_LINES = 1 << 14  # per batch
_UNITS = {int: "lengths", float: "lengths", str: "words", list: "items"}  # others have no length
_NAMES = {
    int: "a number", float: "a number", str: "a string", list: "a list", dict: "an object",
    bool: "true or false", type(None): "null",
}  # fmt: skip
_BEFORE = {"lengths": "numbers", "words": "strings", "items": "lists"}

_decode = json.JSONDecoder().raw_decode


def read_json_lines(lines: Iterable[str], collected: Collected, column: str | None) -> None:
    """Add one length per line that is not blank.

    Args:
        lines: with or without line ends.
        collected: where the lengths go.
        column: the key, if lines are objects; not needed if they have only one.

    Raises:
        UsageError: objects have several keys and none is named, or the first lacks the key.
        LengthsError: a line that is not JSON or of another kind than those before it, or a negative length.
    """
    reader = _Reader(collected, column)
    lines = iter(lines)
    done = 0
    while batch := list(islice(lines, _LINES)):
        reader.add(batch, done)
        done += len(batch)


def read_json(text: str, collected: Collected, column: str | None) -> None:
    """Add one length per item of the JSON array `text`, as `read_json_lines` does per line.

    Raises:
        UsageError, LengthsError: as in `read_json_lines`; or the text is not a JSON array.
    """
    try:
        document = json.loads(text)
    except json.JSONDecodeError as error:
        what = f"not JSON ({error.msg} at character {error.colno})"
        raise collected.error(
            f"line {error.lineno}", f"{what}; if each line is a value, use --format jsonl"
        ) from None
    except RecursionError:
        raise LengthsError(f"{collected.source}: JSON cannot be read (nested too deep)") from None
    except ValueError:
        raise LengthsError(
            f"{collected.source}: JSON cannot be read (a number of thousands of digits)"
        ) from None
    if not isinstance(document, list):
        raise LengthsError(
            f"{collected.source} is {_NAMES[type(document)]}; a JSON file must be one array of lengths or sequences "
            f"(--format jsonl reads one value per line)"
        )
    collected.note = "one JSON array"
    _Reader(collected, column).add_values(document)


class _Reader:
    def __init__(self, collected: Collected, column: str | None) -> None:
        self.collected = collected
        self.column = column

    def add(self, lines: list[str], done: int) -> None:
        """Add the lengths of these lines, which follow `done` others."""
        numbers: list[int] = []
        places: list[int] = []
        for number, line in enumerate(lines, done + 1):
            text = line.strip()
            if text:
                place = f"line {number}"
                numbers.append(self._length(self._value(text, place), place))
                places.append(number)
        self.collected.add_numbers(numbers, lambda i: f"line {places[i]}")

    def add_values(self, values: list[Any]) -> None:
        """Add the lengths of the items of an array."""
        numbers = [self._length(value, f"item {i}") for i, value in enumerate(values, 1)]
        self.collected.add_numbers(numbers, lambda i: f"item {i + 1}")

    def _length(self, value: Any, place: str) -> int:
        if self.collected.unit is None:
            self._settle(value)
        if self.column is not None:
            value = self._of_column(value, place)
        unit = _UNITS.get(type(value))
        if unit is None or unit != self.collected.unit:
            raise self._mixed(value, place)
        if unit == "items":
            return len(value)
        if unit == "words":
            return len(value.split())
        if type(value) is float:
            if not value.is_integer():  # including NaN and infinity
                raise self.collected.error(place, f"{shown(value)} is not a whole number")
            return int(value)
        return value

    def _value(self, text: str, place: str) -> Any:
        try:
            value, end = _decode(text)
        except json.JSONDecodeError as error:
            what = f"{error.msg} at character {error.pos + 1}"
        except RecursionError:
            what = "nested too deep"
        except ValueError:  # more digits than Python accepts
            what = "a number of thousands of digits"
        else:
            if end == len(text):
                return value
            what = f"more than one value, after character {end}"
        raise self.collected.error(place, f"not JSON ({what})")

    def _settle(self, value: Any) -> None:
        """Decide from the first line what is counted, and by which key."""
        source = self.collected.source
        if isinstance(value, dict):
            keys = list(value)
            if not keys:
                raise UsageError(f"{source} has objects without keys")
            if self.column is None:
                if len(keys) != 1:
                    raise UsageError(
                        f"{source} has objects of {len(keys)} keys; choose one with --column: {columns_text(keys)}"
                    )
                self.column = keys[0]
            if self.column not in value:
                raise UsageError(
                    f"{source} has no key {self.column!r}; there are {columns_text(keys, self.column)}"
                )
            value = value[self.column]
            self.collected.column = self.column
        self.collected.unit = _UNITS.get(type(value))

    def _of_column(self, value: Any, place: str) -> Any:
        if not isinstance(value, dict):
            raise self.collected.error(place, f"{shown(value)} is not an object with key {self.column!r}")
        if self.column not in value:
            raise self.collected.error(place, f"the object has no {self.column!r}")
        return value[self.column]

    def _mixed(self, value: Any, place: str) -> LengthsError:
        name, unit = _NAMES[type(value)], self.collected.unit
        if unit is None:
            what = f"{name} has no length; use numbers, strings or lists"
        else:
            named = f"{shown(value)} is {name}" if type(value) in _UNITS else name
            what = f"{named}, but the {place.split()[0]}s before have {_BEFORE[unit]}"
        return self.collected.error(place, what)

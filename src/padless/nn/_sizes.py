"""The check of sizes that the constructors of layers take."""

from __future__ import annotations

import operator
from typing import Any

__all__ = ["whole_number"]


def whole_number(value: Any, name: str, *, at_least: int) -> int:
    """The value as an `int`.

    Raises:
        TypeError: not a whole number.
        ValueError: a smaller number.
    """
    try:
        number = operator.index(value)
    except TypeError:
        raise TypeError(f"{name} must be a whole number, got {value!r}") from None
    if number < at_least:
        raise ValueError(f"{name} must be at least {at_least}, got {number}")
    return number

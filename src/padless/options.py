"""Checks of options, with errors that name the wrong one; needs neither torch nor NumPy."""

from __future__ import annotations

import operator
import sys
import warnings
from collections.abc import Iterable
from functools import cache
from numbers import Number
from typing import Any

__all__ = ["MOST", "MOST_THREADS", "checked_rank", "flag", "is_boolean", "named", "near", "warn", "whole"]

# Largest length in a file and largest number on the command line: no real sequence is longer, but columns of ids and of
# times in nanoseconds are passed by mistake. It also keeps all sums and products of lengths within 64 bits.
MOST = 2**31 - 1
MOST_THREADS = 256  # of one call: each takes memory for its own part


def whole(name: str, value: Any, least: int) -> int:
    """`value` as an integer of at least `least`; otherwise raise a ValueError that names the option."""
    try:
        number = None if is_boolean(value) else operator.index(value)
    except TypeError:  # also tensors and arrays of several numbers, or of floats
        number = None
    if number is None or number < least:
        raise ValueError(f"{name} must be a whole number of at least {least}, got {value!r}")
    return number


def flag(name: str, value: Any) -> bool:
    """`value` as True or False; otherwise raise a ValueError that names the option."""
    if not is_boolean(value) or tuple(getattr(value, "shape", ())):  # arrays of several booleans
        raise ValueError(f"{name} must be True or False, got {value!r}")
    return bool(value)


def is_boolean(value: Any) -> bool:
    """Whether `value` is True or False, of Python, NumPy or torch, which count as the integers 1 and 0 otherwise."""
    if _is_number(type(value)):
        return isinstance(value, bool)
    return str(getattr(value, "dtype", "")) in ("bool", "torch.bool")


@cache  # lists of lengths have millions of numbers of one type
def _is_number(kind: type) -> bool:
    return issubclass(kind, Number)


def named(name: str, value: Any, choices: tuple[str, ...]) -> str:
    """`value` if it is one of `choices`; otherwise raise a ValueError that suggests the closest one."""
    if value not in choices:
        listed = ", ".join(map(repr, choices))
        raise ValueError(f"{name} must be one of {listed}, got {value!r}{near(value, choices)}")
    return value


def checked_rank(rank: Any, world_size: int) -> int:
    """`rank` as an integer below `world_size`; otherwise raise a ValueError."""
    rank = whole("rank", rank, 0)
    if rank >= world_size:
        raise ValueError(f"rank must be below world_size={world_size}, got {rank}")
    return rank


def near(value: Any, choices: Iterable[str]) -> str:
    """The end of an error message: "did you mean" and the closest of `choices`, or nothing."""
    from difflib import get_close_matches  # imported only for errors, so that the command line starts fast

    found = get_close_matches(str(value), list(choices), n=1)
    return f"; did you mean {found[0]!r}?" if found else ""


def warn(text: str) -> None:
    """Issue a UserWarning that points to the first frame outside padless."""
    frame, level = sys._getframe(1), 2
    while frame and frame.f_globals.get("__name__", "").partition(".")[0] == "padless":
        frame, level = frame.f_back, level + 1
    warnings.warn(text, stacklevel=level)

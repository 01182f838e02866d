"""Lengths of any kind as a list of Python integers, without importing torch or NumPy.

Like `layout.checks.as_lengths`, but without torch, for commands that must start in 0.1 s. Both raise LengthsError for
the same values and name the same length, though of two faults of one length they may name different ones. The same
values are accepted as in `planning.checks`, except that one length may be up to 2**63 - 1; there the sum is limited to
2**61.
"""

from __future__ import annotations

import operator
from collections.abc import Iterable, Mapping
from typing import Any

from .errors import LengthsError
from .options import is_boolean

__all__ = ["as_length", "host_lengths"]

_LONGEST = 2**63 - 1


def host_lengths(lengths: Any, *, name: str = "lengths") -> list[int]:
    """`lengths` as a new list of B non-negative integers.

    Args:
        lengths: list, tuple, NumPy array or tensor `(B,)` on any device, or any other iterable of whole
            numbers in order; whole floats (`4.0`) are accepted.
        name: the argument's name in error messages.

    Raises:
        LengthsError: `lengths` is not one-dimensional, or is a set or a mapping, or one of them is negative, not whole
            or over 64 bits.

    >>> host_lengths((4, 6.0, 0))
    [4, 6, 0]
    """
    if isinstance(lengths, (str, bytes, bytearray)):
        raise LengthsError(f"{name} must be whole numbers, got {type(lengths).__name__}")
    if isinstance(lengths, (set, frozenset, Mapping)):
        raise LengthsError(f"{name} must be whole numbers in order, got {type(lengths).__name__}")
    shape = getattr(lengths, "shape", None)
    if shape is not None and len(shape) != 1:
        raise LengthsError(f"{name} must be one-dimensional, (B,), got shape {tuple(shape)}")
    if hasattr(lengths, "tolist"):
        lengths = lengths.tolist()  # a tensor on a device is copied to the host here, once
    if not isinstance(lengths, Iterable):
        raise LengthsError(f"{name} must be a sequence of whole numbers, got {type(lengths).__name__}")
    return [as_length(value, i, name) for i, value in enumerate(lengths)]


def as_length(value: Any, i: int, name: str = "lengths") -> int:
    """`value` as a non-negative integer; otherwise raise a LengthsError that calls it `name[i]`."""
    number = value if type(value) is int else _as_int(value, i, name)
    if number < 0:
        raise LengthsError(f"{name}[{i}] = {number} is negative")
    if number > _LONGEST:
        raise LengthsError(f"{name}[{i}] = {value} does not fit into 64 bits")
    return number


def _as_int(value: Any, i: int, name: str) -> int:
    if is_boolean(value):
        raise LengthsError(f"{name}[{i}] = {value} is not a whole number")
    try:
        return operator.index(value)
    except TypeError:
        pass
    try:
        number = float(value) if not isinstance(value, (str, bytes)) else None
    except (TypeError, ValueError, OverflowError, RuntimeError):
        number = None
    if number is None:
        raise LengthsError(f"{name}[{i}] must be a whole number, got {type(value).__name__}")
    if not number.is_integer():
        raise LengthsError(f"{name}[{i}] = {number} is not a whole number")
    return int(number)

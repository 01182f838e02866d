"""Checks lengths of any kind and returns them as one NumPy array with their sum and maximum, without torch."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from numbers import Number
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import LengthsError
from ..options import is_boolean

__all__ = ["MOST_ROWS", "Lengths", "as_lengths", "chunks"]

_CHUNK = 1 << 20  # lengths checked at a time: 8 MB as int64
MOST_ROWS = 2**61  # keeps sums of lengths and budgets far from int64 overflow


@dataclass(frozen=True, eq=False)
class Lengths:
    """B lengths, checked, with their sum and maximum."""

    # (B,) whole numbers of the caller's dtype; the caller's memory if an array was given.
    values: NDArray[Any]
    rows: int  # N
    longest: int  # T

    def __len__(self) -> int:
        return len(self.values)

    def over(self, budget: int) -> tuple[int, int]:
        """How many lengths are over `budget`, and the index of the first."""
        count, first = 0, -1
        if self.longest > budget:
            for start, chunk in chunks(self.values):
                found = np.flatnonzero(chunk > budget)
                if count == 0 and found.size:
                    first = start + int(found[0])
                count += found.size
        return count, first

    def checksum(self) -> int:
        """Checksum of the lengths and their order; the same for every dtype."""
        number = 0
        for _, chunk in chunks(self.values):
            number = zlib.crc32(chunk.astype("<i8").tobytes(), number)
        return number


def as_lengths(lengths: Any, *, name: str = "lengths") -> Lengths:
    """`lengths` as an array; an integer array is neither copied nor widened, so it may be a memory map.

    Args:
        lengths: list, tuple, NumPy array or tensor `(B,)` on any device, or any other iterable of whole
            numbers; whole floats (`4.0`) are accepted.
        name: the argument's name in error messages.

    Raises:
        LengthsError: not one-dimensional, or a length is negative or not whole; the message names the first one.

    >>> as_lengths([4, 6.0, 0]).values
    array([4, 6, 0])
    """
    if isinstance(lengths, Lengths):
        return lengths
    values = _as_array(lengths, name)
    if values.ndim != 1:
        raise LengthsError(f"{name} must be one-dimensional, (B,), got shape {values.shape}")
    if values.dtype.kind == "f":
        values = _rounded(values, name)
    elif values.dtype.kind not in "iu":
        values = np.array([_whole_entry(value, i, name) for i, value in enumerate(values.tolist())], np.int64)
    rows, longest = 0, 0
    for start, chunk in chunks(values):
        if chunk.min() < 0:
            i = int((chunk < 0).argmax())
            raise LengthsError(f"{name}[{start + i}] = {chunk[i]} is negative")
        longest = max(longest, int(chunk.max()))
        if longest >= MOST_ROWS // _CHUNK:
            rows += sum(chunk.tolist())
        else:
            rows += int(chunk.sum(dtype=np.int64))
        if rows > MOST_ROWS:
            i = int(chunk.argmax())
            raise LengthsError(f"{name}[{start + i}] = {chunk[i]} is too large: the sum overflows")
    return Lengths(values, rows, longest)


def chunks(values: NDArray[Any]) -> Iterator[tuple[int, NDArray[Any]]]:
    """Start and view of each chunk of `values`, so that scans need little memory."""
    for start in range(0, len(values), _CHUNK):
        yield start, values[start : start + _CHUNK]


def _as_array(lengths: Any, name: str) -> NDArray[Any]:
    if isinstance(lengths, (str, bytes, bytearray)):
        raise LengthsError(f"{name} must be whole numbers, got {type(lengths).__name__}")
    if hasattr(lengths, "detach"):
        lengths = lengths.detach().cpu()  # a tensor on a device is copied to the host here, once
        if lengths.is_floating_point():
            lengths = lengths.double()  # NumPy has no bfloat16
    if not hasattr(lengths, "__array__"):
        if not isinstance(lengths, Iterable):
            raise LengthsError(f"{name} must be a sequence of whole numbers, got {type(lengths).__name__}")
        lengths = list(lengths)
        if not lengths:
            return np.zeros(0, np.int64)
    if np.ma.is_masked(lengths):
        return _objects(lengths.tolist())  # None where masked
    try:
        values = np.asarray(lengths)
    except (TypeError, ValueError, OverflowError) as error:
        if isinstance(lengths, list):
            return _objects(lengths)  # whose first wrong one is named
        raise LengthsError(f"{name} must be whole numbers: {error}") from error
    if isinstance(lengths, list) and values.ndim == 1 and not _only_numbers(lengths, values):
        return _objects(lengths)
    return values


def _only_numbers(given: list[Any], values: NDArray[Any]) -> bool:
    """Whether `given` holds only numbers: NumPy converts True to 1, and numbers next to a string to strings."""
    if values.dtype.kind not in "iuf":
        return False
    kinds = set(map(type, given))
    if bool in kinds:
        return False
    return all(issubclass(kind, Number) for kind in kinds) or not any(map(is_boolean, given))


def _objects(values: list[Any]) -> NDArray[Any]:
    """`values` as they are, which `np.array` would convert or take for more dimensions."""
    objects = np.empty(len(values), object)
    for i, value in enumerate(values):  # at once, NumPy would unpack lists of equal length
        objects[i] = value
    return objects


def _rounded(values: NDArray[Any], name: str) -> NDArray[np.int64]:
    rounded = np.empty(values.shape, np.int64)
    wide = np.promote_types(values.dtype, np.float64)  # the bound below exceeds float16
    for start, chunk in chunks(values):
        chunk = chunk.astype(wide, copy=False)
        fits = np.isfinite(chunk) & (chunk == np.floor(chunk))
        if not fits.all():
            i = int(fits.argmin())
            raise LengthsError(f"{name}[{start + i}] = {chunk[i]} is not a whole number")
        if len(chunk) and np.abs(chunk).max() > MOST_ROWS:
            i = int(np.abs(chunk).argmax())
            raise LengthsError(f"{name}[{start + i}] = {chunk[i]} is too large: the sum overflows")
        rounded[start : start + len(chunk)] = chunk
    return rounded


def _whole_entry(value: Any, i: int, name: str) -> int:
    if is_boolean(value):
        raise LengthsError(f"{name}[{i}] = {value} is not a whole number")
    try:
        number = int(value)
        exact = number == value
    except (TypeError, ValueError, OverflowError):
        exact = False
    if isinstance(value, (str, bytes)) or not exact:
        raise LengthsError(f"{name}[{i}] must be a whole number, got {type(value).__name__}")
    if abs(number) > MOST_ROWS:
        raise LengthsError(f"{name}[{i}] = {number} is too large: the sum overflows")
    return number

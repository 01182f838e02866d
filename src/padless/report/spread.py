"""Statistics of lengths: a few numbers and a histogram; needs NumPy."""

from __future__ import annotations

from array import array
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

__all__ = ["Bin", "Spread", "round_step", "spread_of"]

_BINS = 40
_TAIL = 0.995  # of the lengths have bins of the normal width; far longer ones share the last bin


class Bin(NamedTuple):
    """Sequences of lengths from `low` to `high`; without an upper bound if `high` is None."""

    low: int
    high: int | None
    count: int


@dataclass(frozen=True)
class Spread:
    """Statistics of B lengths, at least one."""

    sequences: int
    rows: int
    empty: int  # sequences of length 0
    shortest: int
    median: float
    mean: float
    most: int  # 99 % are no longer than this
    longest: int
    bins: tuple[Bin, ...]

    def __str__(self) -> str:
        median = f"{self.median:,.1f}".removesuffix(".0")
        return (
            f"shortest {self.shortest:,}, median {median}, mean {self.mean:,.1f}, "
            f"99 % up to {self.most:,}, longest {self.longest:,}"
        )


def spread_of(values: array[int]) -> Spread:
    """The spread of lengths `array("i")`; sorts a copy of them.

    >>> spread = spread_of(array("i", [4, 6, 8, 5, 4, 3, 7, 8]))
    >>> print(spread)
    shortest 3, median 5.5, mean 5.6, 99 % up to 8, longest 8
    >>> [(bin.low, bin.count) for bin in spread.bins]
    [(3, 1), (4, 2), (5, 1), (6, 1), (7, 1), (8, 2)]
    """
    ordered = np.sort(np.frombuffer(values, np.int32))
    count = len(ordered)
    rows = int(ordered.sum(dtype=np.int64))
    median = (int(ordered[(count - 1) // 2]) + int(ordered[count // 2])) / 2
    most = int(ordered[-(-99 * count // 100) - 1])
    shortest, longest = int(ordered[0]), int(ordered[-1])
    empty = int(np.searchsorted(ordered, 1))
    bins = _bins(ordered, shortest, int(ordered[int(_TAIL * (count - 1))]), longest)
    return Spread(count, rows, empty, shortest, median, rows / count, most, longest, bins)


def _bins(ordered: np.ndarray, shortest: int, far: int, longest: int) -> tuple[Bin, ...]:
    """Bins of one round width; the last is open if reaching the longest would take many more."""
    width = round_step((far - shortest + 1) / _BINS)
    first = shortest // width * width
    closed = (longest - first) // width + 1
    is_open = closed > _BINS * 3 // 2
    number = (far - first) // width + 1 if is_open else closed
    edges = first + width * np.arange(number + 1, dtype=np.int64)
    ends = np.searchsorted(ordered, edges)
    counts = np.diff(ends).tolist()
    lows = edges.tolist()
    bins = [Bin(low, low + width - 1, count) for low, count in zip(lows, counts, strict=False)]
    if is_open:
        bins.append(Bin(lows[-1], None, len(ordered) - int(ends[-1])))
    return tuple(bins)


def round_step(least: float) -> int:
    """The smallest of 1, 2, 5, 10, 20, ... that is at least `least`."""
    power = 1
    while True:
        for factor in (1, 2, 5):
            if factor * power >= least:
                return factor * power
        power *= 10

"""A batch in packed order: which sequence is in which line of the grid, and where each row is in memory.

Steps are stored as runs of equal batch size, at most one run per sequence, so a billion steps cost as much as eight.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import Any, NamedTuple

from ..errors import LengthsError
from ..lengths import host_lengths
from ..report.measure import Waste, waste

__all__ = ["Arrangement", "Band", "Run", "arrange"]


_MOST = 1_000_000  # sequences: with more, a picture would take many seconds and show no single one


class Run(NamedTuple):
    """Steps `start` to `stop` (excluded) at which `size` sequences run; `row` is the first row."""

    start: int
    stop: int
    size: int
    row: int


class Band(NamedTuple):
    """Neighbouring slots `start` to `stop` (excluded) that share a line of a picture."""

    start: int
    stop: int
    longest: int
    shortest: int


@dataclass(frozen=True)
class Arrangement:
    """B sequences sorted longest first, those of equal length in the caller's order.

    >>> batch = arrange([4, 6, 8, 5, 4, 3, 7, 8])
    >>> batch.order  # the caller's index of each slot
    (2, 7, 6, 1, 3, 0, 4, 5)
    >>> [batch.size(step) for step in range(batch.steps)]
    [8, 8, 8, 7, 5, 4, 3, 2]
    >>> batch.row(4, 1), batch.place(32)  # slot 1 at step 4 is row 32, and back
    (32, (4, 1))
    """

    order: tuple[int, ...]  # (B,) slot -> the caller's index
    lengths: tuple[int, ...]  # (B,) by slot
    runs: tuple[Run, ...]
    numbers: Waste

    @property
    def sequences(self) -> int:
        """B, including sequences of length 0."""
        return len(self.order)

    @property
    def steps(self) -> int:
        """T, the longest length."""
        return self.lengths[0]

    def size(self, step: int) -> int:
        """How many sequences run at `step`: `batch_sizes[step]`."""
        return self._run(step).size

    def row(self, step: int, slot: int) -> int:
        """The row in memory of a real cell."""
        run = self._run(step)
        return run.row + (step - run.start) * run.size + slot

    def place(self, row: int) -> tuple[int, int]:
        """Step and slot of a row in memory."""
        run = self.runs[bisect_right(self.runs, row, key=lambda run: run.row) - 1]
        step, slot = divmod(row - run.row, run.size)
        return run.start + step, slot

    def bands(self, most: int) -> list[Band]:
        """The slots divided evenly into at most `most` lines, each with its longest and shortest length."""
        share = -(-self.sequences // most)
        return [
            Band(start, stop, self.lengths[start], self.lengths[stop - 1])
            for start in range(0, self.sequences, share)
            for stop in (min(start + share, self.sequences),)
        ]

    def _run(self, step: int) -> Run:
        return self.runs[bisect_right(self.runs, step, key=lambda run: run.start) - 1]


def arrange(lengths: Any) -> Arrangement:
    """`lengths` in packed order.

    Args:
        lengths: `(B,)`, in any form that `waste` accepts.

    Raises:
        LengthsError: a length is negative, not whole or over 64 bits, there is no row to draw, or there are more than
            a million sequences.
    """
    values = host_lengths(lengths)
    if len(values) > _MOST:
        raise LengthsError(
            f"lengths has {len(values):,} sequences, but a picture shows at most {_MOST:,}: draw one batch of them"
        )
    if not any(values):
        raise LengthsError("all lengths are 0, so there is nothing to draw")
    order = sorted(range(len(values)), key=values.__getitem__, reverse=True)  # stable, also reversed
    longest_first = [values[i] for i in order]
    return Arrangement(tuple(order), tuple(longest_first), tuple(_runs(longest_first)), waste(values))


def _runs(longest_first: list[int]) -> Iterator[Run]:
    start = row = 0
    size = len(longest_first)
    for length, ending in groupby(reversed(longest_first)):
        if length:
            yield Run(start, length, size, row)
        row += (length - start) * size
        start = length
        size -= sum(1 for _ in ending)

"""`waste`: the rows that sequences need and the cells that a padded batch computes, counted in exact integers."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from ..lengths import host_lengths
from ..options import flag, named, whole
from .counts import Count, Counted
from .given import POLICIES, given_batches

__all__ = ["BatchWaste", "Waste", "waste"]


@dataclass(frozen=True)
class BatchWaste(Counted):
    """One batch and its padded grid: one line per sequence, including those of length 0, and T steps.

    With `policy="binpack"` and not `padded`, the grid is a single line of `tokens` steps; the sequences share it.
    """

    sequences: int
    nonempty: int  # sequences with rows
    rows: int
    lines: int  # of the grid
    steps: int  # T, the longest length or more

    @property
    def cells(self) -> int:  # type: ignore[override]
        """Cells of the padded grid."""
        return self.lines * self.steps

    @property
    def sums(self) -> Count:
        """Sums over time, needed and padded."""
        return Count(self.nonempty, self.lines if self.steps else 0)


@dataclass(frozen=True)
class Waste(Counted):
    """The rows that all batches need and the cells that padding computes.

    >>> numbers = waste([4, 6, 8, 5, 4, 3, 7, 8])
    >>> numbers.rows, numbers.cells, numbers.fill
    (45, 64, 0.703125)
    >>> print(numbers)
    45 rows of 64 cells: 29.7 % wasted, 8 sequences in 1 batch
    """

    batches: tuple[BatchWaste, ...]
    rows: int
    cells: int

    @classmethod
    def of(cls, batches: Iterable[BatchWaste]) -> Waste:
        """The sum of these batches."""
        batches = tuple(batches)
        return cls(batches, sum(batch.rows for batch in batches), sum(batch.cells for batch in batches))

    @property
    def sequences(self) -> int:
        """B, the number of sequences in all batches, including those of length 0."""
        return sum(batch.sequences for batch in self.batches)

    @property
    def sums(self) -> Count:
        """Sums over time, needed and padded."""
        each = [batch.sums for batch in self.batches]
        return Count(sum(sums.needed for sums in each), sum(sums.padded for sums in each))

    def __str__(self) -> str:
        batches = f"{len(self.batches):,} batch" + ("" if len(self.batches) == 1 else "es")
        sequences = f"{self.sequences:,} sequence" + ("" if self.sequences == 1 else "s")
        return (
            f"{self.rows:,} rows of {self.cells:,} cells: {self.wasted_percent:.1f} % wasted, "
            f"{sequences} in {batches}"
        )


def waste(
    lengths: Any,
    *,
    batch_size: int | None = None,
    tokens: int | None = None,
    policy: str = "given",
    seed: int = 0,
    padded: bool = False,
) -> Waste:
    """Rows needed and cells computed if sequences of these lengths are padded batch by batch.

    Args:
        lengths: list, tuple, NumPy array, tensor `(B,)` on any device, or any other iterable of whole
            numbers, 0 allowed. Without sequences there is no batch and no waste.
        batch_size: sequences per batch; the last batch may have fewer.
        tokens: rows per batch, instead of `batch_size`; if neither is given, all sequences form one batch.
        policy: how batches are filled. `"given"`: in the order given, in plain Python. `"random"`,
            `"bucket"`, `"sorted"` and `"binpack"`: as `padless.data.plan` fills them in epoch 0; these need NumPy.
        seed: seed of the random numbers.
        padded: whether `tokens` bounds the cells of the padded grid instead of the rows.

    Raises:
        LengthsError: a length is negative or not whole; the message names the first one.
        ValueError: invalid options, or an unknown policy.

    >>> waste([4, 6, 8, 5, 4, 3, 7, 8], batch_size=4, policy="sorted").cells
    52
    >>> print(waste([4, 6, 8, 5, 4, 3, 7, 8], tokens=16, policy="binpack"))
    45 rows of 48 cells: 6.2 % wasted, 8 sequences in 3 batches
    """
    named("policy", policy, POLICIES)
    if batch_size is not None and tokens is not None:
        raise ValueError("give either batch_size or tokens, got both")
    batch_size = batch_size if batch_size is None else whole("batch_size", batch_size, 1)
    tokens = tokens if tokens is None else whole("tokens", tokens, 1)
    seed, padded = whole("seed", seed, 0), flag("padded", padded)
    if padded and tokens is None:
        raise ValueError("padded says that tokens counts cells: give tokens")
    if policy == "binpack" and tokens is None:
        raise ValueError("policy 'binpack' fills rows of a fixed size: give tokens")
    if policy == "given" or (batch_size is None and tokens is None):
        numbers = given_batches(host_lengths(lengths), batch_size=batch_size, tokens=tokens, padded=padded)
    else:
        from .planned import planned_batches  # imports NumPy

        numbers = planned_batches(
            lengths, policy, batch_size=batch_size, tokens=tokens, seed=seed, padded=padded
        )
    return Waste.of(BatchWaste(*each) for each in numbers)

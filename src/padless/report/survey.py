"""What each policy makes of one set of lengths, in totals: ten million of them in little more memory than they are."""

from __future__ import annotations

import operator
import warnings
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import NamedTuple

from .counts import Count, Counted
from .measure import Numbers, given_batches

__all__ = ["Batching", "PolicyWaste", "batchings", "survey"]

_BATCHES = 1 << 12  # added up at a time, where they come one by one


@dataclass(frozen=True)
class Batching:
    """How sequences are put together: a policy, and the size of a batch, in sequences or in rows or cells."""

    policy: str
    batch_size: int | None
    tokens: int | None
    padded: bool = False  # `tokens` are cells of the grid
    seed: int = 0

    @property
    def is_shared(self) -> bool:
        """Whether the sequences of a batch share one line of the grid."""
        return self.policy == "binpack" and not self.padded


@dataclass(frozen=True)
class PolicyWaste(Counted):
    """The totals of all batches of one policy."""

    batching: Batching
    batches: int
    sequences: int
    rows: int
    cells: int
    needed_sums: int
    padded_sums: int

    @property
    def sums(self) -> Count:
        """Sums over time, needed and padded."""
        return Count(self.needed_sums, self.padded_sums)


def batchings(
    values: Sequence[int],
    policies: Iterable[str],
    *,
    batch_size: int | None,
    tokens: int | None,
    padded: bool,
    seed: int,
) -> list[Batching]:
    """One a policy. By batch size, `binpack` gets as many tokens as such a batch has rows on average.

    >>> batchings([4, 6, 8], ["binpack"], batch_size=2, tokens=None, padded=False, seed=0)
    [Batching(policy='binpack', batch_size=2, tokens=12, padded=False, seed=0)]
    """
    mean_rows = -(-min(batch_size or 0, len(values)) * sum(values) // max(len(values), 1))
    each = []
    for policy in policies:
        budget = tokens
        if policy == "binpack" and budget is None:
            budget = max(mean_rows, max(values, default=0), 1)
        each.append(Batching(policy, batch_size, budget, padded, seed))
    return each


def survey(
    values: array[int],
    batching: Batching,
    *,
    progress: Callable[[int, int | None], None] = lambda done, total: None,
) -> PolicyWaste:
    """The totals of the batches of `values`, lengths as `array("i")`.

    Args:
        values: lengths.
        batching: how they are put together.
        progress: called with how many sequences have their batch, and how many there are.
    """
    totals = [0] * len(_Totals._fields)
    for part in _parts(values, batching):
        totals = [total + more for total, more in zip(totals, part, strict=True)]
        progress(totals[1], len(values))
    return PolicyWaste(batching, *totals)


class _Totals(NamedTuple):
    """The fields of `PolicyWaste` of some batches."""

    batches: int
    sequences: int
    rows: int
    cells: int
    needed_sums: int
    padded_sums: int


def _parts(values: array[int], batching: Batching) -> Iterator[_Totals]:
    """Totals of some thousand batches at a time."""
    if batching.policy == "given":
        numbers = given_batches(
            values, batch_size=batching.batch_size, tokens=batching.tokens, padded=batching.padded
        )
        while some := list(islice(numbers, _BATCHES)):
            yield _added(some)
        return
    import numpy as np

    from .planned import planned

    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", UserWarning
        )  # of sequences over the budget: the table has a note of them
        for pool in planned(
            np.frombuffer(values, np.int32),
            batching.policy,
            batch_size=batching.batch_size if batching.tokens is None else None,
            tokens=batching.tokens,
            seed=batching.seed,
            padded=batching.padded,
        ):
            sequences, nonempty, rows, lines, steps = pool
            columns = (sequences, rows, lines * steps, nonempty, lines * (steps > 0))
            yield _Totals(len(sequences), *(int(column.sum()) for column in columns))


def _added(batches: list[Numbers]) -> _Totals:
    sequences, nonempty, rows, lines, steps = zip(*batches, strict=True)
    cells = sum(map(operator.mul, lines, steps))
    padded_sums = sum(line for line, step in zip(lines, steps, strict=True) if step)
    return _Totals(len(batches), sum(sequences), sum(rows), cells, sum(nonempty), padded_sums)

"""The totals of each policy for one set of lengths, in little more memory than the lengths themselves."""

from __future__ import annotations

import operator
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..planning import rule_of
from ..planning.pools import Rule
from .counts import Count, Counted
from .given import given_batches, given_bounds
from .planned import planned, planned_pools

__all__ = ["Batching", "PolicyWaste", "batches_at", "batchings", "survey"]

_BATCHES = 1 << 12  # summed at a time, if they come one by one


@dataclass(frozen=True)
class Batching:
    """How sequences are batched: a policy, and the size of a batch in sequences, rows or cells."""

    policy: str
    batch_size: int | None
    tokens: int | None
    padded: bool = False  # whether `tokens` are cells of the grid
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
    """One per policy. With a batch size, `binpack` gets as many tokens as such a batch has rows on average.

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
    """The totals of the batches of `values`.

    Args:
        values: lengths, as `array("i")`.
        batching: how they are batched.
        progress: called with the number of sequences batched so far and the number of all sequences.
    """
    totals = [0] * len(_Totals._fields)
    for part in _given(values, batching) if batching.policy == "given" else _planned(values, batching):
        totals = [total + more for total, more in zip(totals, part, strict=True)]
        progress(totals[1], len(values))
    return PolicyWaste(batching, *totals)


def batches_at(values: array[int], batching: Batching, numbers: Sequence[int]) -> list[list[int]]:
    """The lengths in the batches with these numbers, in the order of the batches.

    >>> batches_at(array("i", [4, 6, 8, 5, 3]), Batching("given", batch_size=2, tokens=None), [2, 0])
    [[4, 6], [3]]
    """
    wanted, found, done = sorted(set(numbers)), [], 0
    if batching.policy == "given":
        bounds = given_bounds(values, **_size(batching), padded=batching.padded)
        return [
            values[start:stop].tolist() for number, (start, stop) in enumerate(bounds) if number in wanted
        ]
    for rows, bounds in planned_pools(_view(values), _rule(batching), seed=batching.seed):
        here = [number - done for number in wanted if done <= number < done + len(bounds) - 1]
        found += [rows[bounds[place] : bounds[place + 1]].tolist() for place in here]
        done += len(bounds) - 1
    return found


class _Totals(NamedTuple):
    """The fields of `PolicyWaste` of some batches."""

    batches: int
    sequences: int
    rows: int
    cells: int
    needed_sums: int
    padded_sums: int


def _given(values: array[int], batching: Batching) -> Iterator[_Totals]:
    batches = given_batches(values, **_size(batching), padded=batching.padded)
    while some := list(islice(batches, _BATCHES)):
        sequences, nonempty, rows, lines, steps = zip(*some, strict=True)
        cells = sum(map(operator.mul, lines, steps))
        padded_sums = sum(line for line, step in zip(lines, steps, strict=True) if step)
        yield _Totals(len(some), sum(sequences), sum(rows), cells, sum(nonempty), padded_sums)


def _planned(values: array[int], batching: Batching) -> Iterator[_Totals]:
    for sequences, nonempty, rows, lines, steps in planned(
        _view(values), _rule(batching), seed=batching.seed
    ):
        columns = (sequences, rows, lines * steps, nonempty, lines * (steps > 0))
        yield _Totals(len(sequences), *(int(column.sum()) for column in columns))


def _size(batching: Batching) -> dict[str, int | None]:
    """The size option: `tokens` if both are set, since those of `binpack` are derived from the batch size."""
    return {
        "batch_size": batching.batch_size if batching.tokens is None else None,
        "tokens": batching.tokens,
    }


def _rule(batching: Batching) -> Rule:
    return rule_of(policy=batching.policy, **_size(batching), padded=batching.padded, world_size=1)


def _view(values: array[int]) -> NDArray[np.int32]:
    """The same memory as a NumPy array."""
    return np.frombuffer(values, np.int32)

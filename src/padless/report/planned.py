"""Counts the rows and cells of planned batches, pool by pool, so that ten million sequences take seconds.
Needs NumPy.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..planning import Planner, rule_of
from ..planning.checks import as_lengths
from ..planning.pools import Rule
from .given import Numbers

__all__ = ["Columns", "planned", "planned_batches", "planned_pools"]

_Column = NDArray[np.int64]


class Columns(NamedTuple):
    """The fields of `BatchWaste`, each an int64 array with one entry per batch."""

    sequences: _Column
    nonempty: _Column
    rows: _Column
    lines: _Column
    steps: _Column


def planned_pools(lengths: Any, rule: Rule, *, seed: int) -> Iterator[tuple[_Column, _Column]]:
    """The lengths and batch bounds of each pool, as `padless.data.plan` batches them in epoch 0.

    Warns:
        UserWarning: sequences are longer than the budget.
    """
    known = as_lengths(lengths)
    if len(known):
        for indices, bounds in Planner(known, rule, seed=seed).pools(epoch=0):
            yield known.values[indices].astype(np.int64), bounds


def planned(lengths: Any, rule: Rule, *, seed: int) -> Iterator[Columns]:
    """The numbers of the batches of each pool."""
    for rows, bounds in planned_pools(lengths, rule, seed=seed):
        starts = bounds[:-1]
        lines = sequences = np.diff(bounds)
        steps = np.maximum.reduceat(rows, starts)
        if rule.policy == "binpack" and not rule.padded:
            lines, steps = np.ones_like(sequences), np.maximum(steps, rule.tokens or 0)
        nonempty = np.add.reduceat((rows > 0).astype(np.int64), starts)
        yield Columns(sequences, nonempty, np.add.reduceat(rows, starts), lines, steps)


def planned_batches(
    lengths: Any, policy: str, *, batch_size: int | None, tokens: int | None, seed: int, padded: bool
) -> Iterator[Numbers]:
    """The same, one batch at a time; none if there are no lengths.

    Raises:
        LengthsError: a length is negative or not whole.
        ValueError: invalid options.
    """
    rule = rule_of(batch_size=batch_size, tokens=tokens, policy=policy, padded=padded, world_size=1)
    if policy == "binpack" and not padded and tokens != rule.tokens:  # else only an upper bound
        raise ValueError(f"tokens must be at most {rule.tokens}, got {tokens}")
    pools = planned(lengths, rule, seed=seed)
    return (numbers for pool in pools for numbers in zip(*(column.tolist() for column in pool), strict=True))

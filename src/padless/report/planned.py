"""What the batches of a plan need, counted a pool at a time: ten million sequences take seconds. Needs NumPy."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .._planning import Planner, rule_of
from .._planning.checks import as_lengths
from .measure import Numbers

__all__ = ["Columns", "planned", "planned_batches"]

_Column = NDArray[np.int64]


class Columns(NamedTuple):
    """The fields of `BatchWaste`, each an int64 array with one entry a batch."""

    sequences: _Column
    nonempty: _Column
    rows: _Column
    lines: _Column
    steps: _Column


def planned(
    lengths: Any, policy: str, *, batch_size: int | None, tokens: int | None, seed: int, padded: bool
) -> Iterator[Columns]:
    """The batches of epoch 0 as `padless.data.plan` makes them, those of one pool at a time.

    Warns:
        UserWarning: sequences are longer than `tokens`.
    """
    rule = rule_of(batch_size=batch_size, tokens=tokens, policy=policy, padded=padded, world_size=1)
    known = as_lengths(lengths)
    if not len(known):
        return
    planner = Planner(known, rule, seed=seed)
    values = known.values
    for indices, bounds in planner.pools(epoch=0):
        rows = values[indices].astype(np.int64)
        starts = bounds[:-1]
        sequences = np.diff(bounds)
        steps = np.maximum.reduceat(rows, starts)
        if policy == "binpack" and not padded:
            assert tokens is not None
            lines, steps = np.ones_like(sequences), np.maximum(steps, tokens)
        else:
            lines = sequences
        nonempty = np.add.reduceat((rows > 0).astype(np.int64), starts)
        yield Columns(sequences, nonempty, np.add.reduceat(rows, starts), lines, steps)


def planned_batches(
    lengths: Any, policy: str, *, batch_size: int | None, tokens: int | None, seed: int, padded: bool
) -> Iterator[Numbers]:
    """The same, a batch at a time; none where there are no lengths."""
    pools = planned(lengths, policy, batch_size=batch_size, tokens=tokens, seed=seed, padded=padded)
    return (numbers for pool in pools for numbers in zip(*(column.tolist() for column in pool), strict=True))

"""Deals the sequences of a step to ranks so that their work is balanced."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["deal_longest_first", "deal_runs"]

Costs = NDArray[np.int64]  # (n,) rows of each sequence, at least 1
Bounds = NDArray[np.int64]  # (G+1,) step g holds the sequences from bounds[g] to bounds[g + 1]
_CELLS = 1 << 18  # in the grids of the steps dealt at a time: 2 MB of int64
_FULL = 2**62  # more than the rows of any rank


def deal_longest_first(costs: Costs, bounds: Bounds, ranks: int, most: int) -> NDArray[np.int64]:
    """`(n,)` the batch of each sequence, step * ranks + rank: longest first, to the rank with the fewest rows.

    A rank takes at most `most` sequences of a step, and at least one if the step has enough.
    """
    batch_of = np.empty(len(costs), np.int64)
    sizes = np.diff(bounds)
    steps = (-sizes).argsort(kind="stable")  # steps of similar size need little padding in a grid
    first = 0
    while first < len(steps):
        block = steps[first : first + max(_CELLS // int(sizes[steps[first]]), 1)]
        first += len(block)
        columns = np.arange(int(sizes[block[0]]))
        real = columns < sizes[block, None]
        places = bounds[block, None] + columns
        grid = np.where(real, costs[np.where(real, places, 0)], 0)
        longest = (-grid).argsort(axis=1, kind="stable")
        chosen = _least_loaded(np.take_along_axis(grid, longest, 1), ranks, most)
        dealt = np.empty_like(chosen)
        np.put_along_axis(dealt, longest, chosen, 1)
        batch_of[places[real]] = (block[:, None] * ranks + dealt)[real]
    return batch_of


def _least_loaded(grid: NDArray[np.int64], ranks: int, most: int) -> NDArray[np.int64]:
    """`(G, M)` the rank of each cost in `grid (G, M)`, whose rows are non-increasing and may be padded with zeros."""
    steps = len(grid)
    loads = np.zeros((steps, ranks), np.int64)
    flat, counts = loads.reshape(-1), np.zeros(steps * ranks, np.int64)
    base = np.arange(0, steps * ranks, ranks)
    chosen = np.empty(grid.shape, np.int64)
    capped = most < grid.shape[1]
    for column in range(grid.shape[1]):
        rank = loads.argmin(axis=1)
        chosen[:, column] = rank
        rank += base
        cost = grid[:, column]
        flat[rank] += cost
        if capped:
            counts[rank] += cost > 0
            flat[rank[(counts[rank] == most) & (cost > 0)]] += _FULL
    return chosen


def deal_runs(costs: Costs, bounds: Bounds, ranks: int) -> NDArray[np.int64]:
    """`(n,)` the batch of each sequence, step * ranks + rank: neighbours in length, equally many for each rank.

    This gives the fewest cells when padded.
    """
    sizes = np.diff(bounds)
    step_of = np.arange(len(sizes)).repeat(sizes)
    by_length = np.lexsort((-costs, step_of))
    place = np.arange(len(costs)) - bounds[:-1].repeat(sizes)
    batch_of = np.empty(len(costs), np.int64)
    batch_of[by_length] = step_of * ranks + place * ranks // sizes.repeat(sizes)
    return batch_of

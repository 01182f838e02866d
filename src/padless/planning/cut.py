"""Cuts a pool of sequences into batches, by cost in rows and budget."""

from __future__ import annotations

import heapq
from bisect import bisect_left, insort
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

__all__ = ["best_fit", "cut_cells", "cut_rows", "split_evenly"]

Costs = NDArray[np.int64]  # (n,) rows of each sequence, at least 1
Bounds = NDArray[np.int64]  # (K+1,) batch k holds the sequences from bounds[k] to bounds[k + 1]


def cut_rows(costs: Costs, budget: int) -> Bounds:
    """As many sequences per batch as fit into `budget` rows, in the order given; at least one."""
    ends = costs.cumsum()
    following = np.searchsorted(ends, ends - costs + budget, side="right")
    return _follow(np.maximum(following, np.arange(1, len(costs) + 1)))


def cut_cells(costs: Costs, budget: int) -> Bounds:
    """As many sequences per batch as fit into a padded grid of `budget` cells, in the order given; at least one."""
    if (costs[1:] <= costs[:-1]).all():  # the first of a batch is its longest
        return _follow(np.arange(len(costs)) + np.maximum(budget // costs, 1))
    bounds, start, longest = [0], 0, 0
    for place, cost in enumerate(costs.tolist()):
        longest = max(longest, cost)
        if (place + 1 - start) * longest > budget and place > start:
            bounds.append(place)
            start, longest = place, cost
    return np.array([*bounds, len(costs)])


def _follow(following: NDArray[np.int64]) -> Bounds:
    """Bounds from 0 to the end; `following[i]` is the end of a batch that starts at i."""
    ends, bounds, place = following.tolist(), [0], 0
    while place < len(ends):
        place = min(ends[place], len(ends))
        bounds.append(place)
    return np.array(bounds)


def best_fit(costs: Costs, budget: int) -> tuple[NDArray[np.int64], Bounds]:
    """Batches of up to `budget` rows by best fit, longest first: the order of the sequences, and bounds.

    Batches are ordered fullest first. A sequence goes to the fullest batch that has space for it. Batches with the
    same space left are interchangeable, and so are sequences of the same length, so whole groups of both are placed at
    once, and the time is proportional to the number of different lengths.

    Args:
        costs: `(n,)`, longest first.
    """
    batch_of: list[int] = []  # of each sequence
    open_batches, opened = _OpenBatches(), 0
    for start, stop in _runs(costs):
        cost, left = int(costs[start]), stop - start
        for share, group in open_batches.take(cost, left):
            batch_of += group * share
            left -= len(group) * share
        if left:
            share = min(max(budget // cost, 1), left)
            full, rest = divmod(left, share)
            group = list(range(opened, opened + full))
            batch_of += group * share
            open_batches.put(budget - share * cost, group)
            opened += full
            if rest:
                batch_of += [opened] * rest
                open_batches.put(budget - rest * cost, [opened])
                opened += 1
    batches = np.array(batch_of)
    loads = np.bincount(batches, weights=costs)
    number = np.empty(opened, np.int64)
    number[(-loads).argsort(kind="stable")] = np.arange(opened)
    batches = number[batches]
    return batches.argsort(kind="stable"), np.append(0, np.bincount(batches).cumsum())


class _OpenBatches:
    """Batches that are not full, by the number of rows that still fit."""

    def __init__(self) -> None:
        self.sizes: list[int] = []  # the keys of `groups`, smallest first
        self.groups: dict[int, list[int]] = {}  # none is empty

    def put(self, space: int, group: list[int]) -> None:
        if space <= 0 or not group:
            return
        if space not in self.groups:
            insort(self.sizes, space)
            self.groups[space] = []
        self.groups[space] += group

    def take(self, cost: int, count: int) -> Iterator[tuple[int, list[int]]]:
        """Groups of batches, and how many of `count` sequences of this cost each batch in the group takes.

        The batch with the least sufficient space is filled first. It then has even less space, so the same batch takes
        sequences until no other fits.
        """
        while count and (at := bisect_left(self.sizes, cost)) < len(self.sizes):
            space = self.sizes[at]
            share = min(space // cost, count)
            group = self._draw(space, at, count // share)
            yield share, group
            self.put(space - share * cost, group)
            count -= share * len(group)

    def _draw(self, space: int, at: int, most: int) -> list[int]:
        """Remove and return up to `most` batches with this space, which is `sizes[at]`."""
        waiting = self.groups[space]
        if most < len(waiting):
            group = waiting[-most:]
            del waiting[-most:]
            return group
        del self.sizes[at]
        return self.groups.pop(space)


def split_evenly(bounds: Bounds, parts: int) -> Bounds | None:
    """`bounds` with batches split until their number is a multiple of `parts`; None if that is impossible.

    The batch with the most sequences is split first, and the parts of a split batch stay neighbours.
    """
    batches, end = len(bounds) - 1, int(bounds[-1])
    missing = -batches % parts
    if not missing:
        return bounds
    tail = batches - batches % parts
    while tail and end - bounds[tail] < batches - tail + missing:
        tail -= parts
    if end - bounds[tail] < batches - tail + missing:
        return None
    starts = bounds[tail:-1].tolist()
    ends = bounds[tail + 1 :].tolist()
    heap = [(first - last, -first) for first, last in zip(starts, ends, strict=True)]
    heapq.heapify(heap)
    for _ in range(missing):
        minus_count, minus_start = heapq.heappop(heap)
        half = -minus_count // 2
        heapq.heappush(heap, (-half, minus_start))
        heapq.heappush(heap, (minus_count + half, minus_start - half))
    split = sorted(-minus_start for _, minus_start in heap)
    return np.array([*bounds[:tail].tolist(), *split, end])


def _runs(values: NDArray[np.int64]) -> Iterator[tuple[int, int]]:
    """Start and stop of each run of equal values."""
    changes = np.flatnonzero(values[1:] != values[:-1]) + 1
    yield from zip([0, *changes.tolist()], [*changes.tolist(), len(values)], strict=True)

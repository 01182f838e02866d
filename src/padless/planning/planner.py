"""The batches of an epoch, pool after pool: computed lazily, the same on every rank, one pool in memory at a time."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from itertools import islice, pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import LengthsError
from ..options import flag, named, warn, whole
from .checks import as_lengths
from .order import Exchange, Shuffle, longest_first, shortest
from .pools import POLICIES, Rule, batch_in_step, check_count, plan_pool, step_start

__all__ = ["PLAN_VERSION", "Planner", "PoolStarts", "rule_of"]

Numbers = NDArray[np.int64]

# Default number of sequences planned at a time. A random order is the same in pools of any size; buckets mix better
# in small pools, bins fill better in large ones (benchmarks/results/planning.json).
_POOL = {"random": 1 << 18, "bucket": 1 << 12, "sorted": 1 << 20, "binpack": 1 << 16}
_STEPS = 64  # minimum number of steps of a pool, if possible
_LARGEST = 1 << 22  # sequences that a pool should not exceed for that, unless 8 steps need more

# Incremented when the same options give different batches, so that no state of a sampler is misread.
PLAN_VERSION = 1

_LARGEST_BUDGET = 2**62  # more rows than there can be; sums still fit int64
_ORDER, _STEP_ORDER = 0, 1  # keys of the random numbers


def rule_of(
    *, batch_size: int | None, tokens: int | None, policy: str, padded: bool, world_size: int
) -> Rule:
    """The options as a `Rule`; raise a ValueError that names the first invalid one."""
    named("policy", policy, POLICIES)
    world_size = whole("world_size", world_size, 1)
    if (batch_size is None) == (tokens is None):
        given = "neither" if batch_size is None else "both"
        raise ValueError(f"give either batch_size or tokens, got {given}")
    if tokens is None and policy == "binpack":
        raise ValueError("policy 'binpack' fills rows: give tokens, not batch_size")
    if batch_size is not None:
        batch_size = whole("batch_size", batch_size, 1)
    if tokens is not None:
        tokens = min(whole("tokens", tokens, 1), _LARGEST_BUDGET)
    return Rule(policy, batch_size, tokens, flag("padded", padded), world_size)


class PoolStarts:
    """The batches of a rank before each pool of an epoch, as far as it has been planned or the caller knows."""

    def __init__(self, pool: int = 0, before: int = 0) -> None:
        self._before = {0: 0, pool: before}

    def add(self, pool: int, before: int) -> None:
        """Note that `pool` has `before` batches before it."""
        self._before[pool] = before

    def last(self) -> tuple[int, int]:
        """The last known pool, and the batches before it."""
        return max(self._before.items())

    def around(self, batch: int) -> tuple[int, int]:
        """The last pool known to start at or before `batch`, and the batches before it."""
        return max((pool, before) for pool, before in self._before.items() if before <= batch)


class Planner:
    """Batches for every epoch of one set of lengths; checks all arguments and warns once of lengths over the budget."""

    def __init__(self, lengths: Any, rule: Rule, *, seed: int = 0, pool: int | None = None) -> None:
        self.lengths = as_lengths(lengths)
        self.rule = rule
        self.seed = whole("seed", seed, 0)
        check_count(len(self.lengths), rule)
        self.pool = self._good_pool() if pool is None else whole("pool", pool, 1)
        if rule.tokens is not None:
            self._warn_of_lengths_over_budget(rule.tokens)
        self.bounds = self._pool_bounds()
        self._last_exchange: tuple[int, Exchange | None] = -1, None  # of this epoch

    @property
    def fixed_batch_count(self) -> int | None:
        """Batches per rank in every epoch; None if only planning can tell."""
        return -(-len(self.lengths) // self.rule.step_size) if self.rule.step_size else None

    def batch_count(self, epoch: int, starts: PoolStarts | None = None) -> int:
        """Batches per rank in this epoch. With `tokens` the pools after the last of `starts` are planned, and added."""
        if self.fixed_batch_count is not None:
            return self.fixed_batch_count
        starts = PoolStarts() if starts is None else starts
        pool, before = starts.last()
        if pool < len(self.bounds) - 1:
            for following, (_, bounds) in enumerate(self.pools(epoch, pool), pool + 1):
                before += (len(bounds) - 1) // self.rule.world_size
                starts.add(following, before)
        return before

    def batches(
        self, epoch: int, rank: int, start: int = 0, starts: PoolStarts | None = None
    ) -> Iterator[Numbers]:
        """The batches of `rank` from number `start` on, as arrays of indices.

        Args:
            starts: the pools known so far, to which those that are planned are added. Pools known to end before
                `start` are not planned again.
        """
        ranks = self.rule.world_size
        starts = PoolStarts() if starts is None else starts
        pool, before = self.seek(start, starts)
        for following, (indices, bounds) in enumerate(self.pools(epoch, pool), pool + 1):
            steps = (len(bounds) - 1) // ranks
            starts.add(following, before + steps)
            for step in range(max(start - before, 0), steps):
                batch = step * ranks + batch_in_step(rank, before + step, ranks)
                yield indices[bounds[batch] : bounds[batch + 1]]
            before += steps

    def seek(self, batch: int, starts: PoolStarts) -> tuple[int, int]:
        """The last pool known to start at or before `batch`, and the batches per rank before that pool."""
        size = self.rule.step_size
        if not size:
            return starts.around(batch)
        firsts = [-(-bound // size) for bound in self.bounds[:-1]]
        pool = bisect_right(firsts, batch) - 1
        return pool, firsts[pool]

    def pools(self, epoch: int, first: int = 0) -> Iterator[tuple[Numbers, Numbers]]:
        """The indices, batch after batch, and batch bounds of each pool from `first` on.

        Raises:
            LengthsError: the remainder that is not a multiple of `world_size` cannot be distributed.
        """
        exchange = self._exchange_of(epoch)
        for number, indices in enumerate(self._indices(epoch, first), first):
            yield self._planned(exchange(indices) if exchange else indices, epoch, number)

    def _exchange_of(self, epoch: int) -> Exchange | None:
        """What the first pool gets from the others so that its remainder can be dealt; None if it needs nothing.

        It gets the shortest sequences of all. Twice as many as the remainder are enough if there is any way to deal it.
        """
        known, exchange = self._last_exchange
        if known != epoch:
            exchange = None
            remainder = len(self.lengths) % self.rule.world_size
            has_it_first = self.rule.tokens is not None and self.rule.policy != "sorted"
            if remainder and has_it_first and len(self.bounds) > 2:
                start = next(self._indices(epoch, 0))
                try:
                    self._planned(start, epoch, 0)
                except LengthsError:
                    exchange = Exchange(start, shortest(self.lengths, 2 * remainder))
            self._last_exchange = epoch, exchange
        return exchange

    def _planned(self, indices: Numbers, epoch: int, number: int) -> tuple[Numbers, Numbers]:
        costs = np.maximum(self.lengths.values[indices].astype(np.int64), 1)
        order, bounds = plan_pool(costs, self.rule, self.seed, epoch, _STEP_ORDER, number)
        return indices[order], bounds

    def _indices(self, epoch: int, first: int) -> Iterator[Numbers]:
        """The sequences of each pool from `first` on, in the order of the epoch."""
        bounds = self.bounds[first:]
        if self.rule.policy != "sorted":
            shuffle = Shuffle(len(self.lengths), self.seed, epoch, _ORDER)
            yield from (shuffle.block(*ends) for ends in pairwise(bounds))
            return
        blocks = longest_first(self.lengths, self.bounds[1])
        yield from islice(_cut_anew(blocks, self.bounds), first, None)

    def _pool_bounds(self) -> list[int]:
        """Start and end of each pool in the order of an epoch: whole steps, pools of about the same size."""
        rule, count, size = self.rule, len(self.lengths), self.rule.step_size
        if size:
            steps = -(-count // size)
            pools = -(-steps // max(self.pool // size, 1))
            firsts = [steps * number // pools for number in range(pools + 1)]
            return [step_start(first, size, count, rule.world_size) for first in firsts]
        # The sequences of a pool are a multiple of `world_size`, and one pool takes the remainder: the first, so that
        # an error is raised at once, or with "sorted" the last, since the first pool holds the longest sequences.
        each, over = divmod(count, rule.world_size)
        pools = max(count // max(self.pool, rule.world_size), 1)
        shared = [each * number // pools * rule.world_size for number in range(pools + 1)]
        if rule.policy == "sorted":
            return [*shared[:-1], count]
        return [0, *(over + bound for bound in shared[1:])]

    def _good_pool(self) -> int:
        rule = self.rule
        mean = max(self.lengths.rows // len(self.lengths), 1)
        step = rule.step_size or rule.world_size * max((rule.tokens or 0) // mean, 1)
        return max(_POOL[rule.policy], min(_STEPS * step, max(_LARGEST, 8 * step)))

    def _warn_of_lengths_over_budget(self, tokens: int) -> None:
        count, first = self.lengths.over(tokens)
        if count:
            others = f", and so are {count - 1} others" if count > 2 else ", and so is 1 other" * (count - 1)
            warn(
                f"lengths[{first}] = {self.lengths.values[first]} is over tokens={tokens}: "
                f"it is a batch of its own{others}"
            )


def _cut_anew(blocks: Iterator[Numbers], bounds: list[int]) -> Iterator[Numbers]:
    """The concatenation of `blocks`, cut at `bounds`."""
    held = np.zeros(0, np.int64)
    for start, stop in pairwise(bounds):
        while len(held) < stop - start:
            held = np.concatenate([held, next(blocks)])
        yield held[: stop - start]
        held = held[stop - start :]

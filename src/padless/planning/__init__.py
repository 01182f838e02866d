"""Plans batches: which sequences go into which batch, on which rank, in which epoch; needs NumPy, not torch."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..options import checked_rank, whole
from .planner import PLAN_VERSION, Planner, PoolStarts, rule_of
from .pools import POLICIES, Rule

__all__ = ["PLAN_VERSION", "POLICIES", "Planner", "PoolStarts", "Rule", "batches", "plan", "rule_of"]


def batches(
    lengths: Any,
    *,
    batch_size: int | None = None,
    tokens: int | None = None,
    policy: str = "random",
    seed: int = 0,
    epoch: int = 0,
    world_size: int = 1,
    rank: int = 0,
    padded: bool = False,
    pool: int | None = None,
) -> Iterator[NDArray[np.int64]]:
    """The batches of `plan`, one at a time, as int64 arrays of indices.

    Arguments are checked at once; pools are planned as batches are requested, and only one is in memory at a time.

    >>> [batch.tolist() for batch in batches([4, 6, 8, 5], batch_size=2, policy="sorted")]
    [[2, 1], [3, 0]]
    """
    rule = rule_of(batch_size=batch_size, tokens=tokens, policy=policy, padded=padded, world_size=world_size)
    rank, epoch = checked_rank(rank, rule.world_size), whole("epoch", epoch, 0)
    return Planner(lengths, rule, seed=seed, pool=pool).batches(epoch, rank)


def plan(
    lengths: Any,
    *,
    batch_size: int | None = None,
    tokens: int | None = None,
    policy: str = "random",
    seed: int = 0,
    epoch: int = 0,
    world_size: int = 1,
    rank: int = 0,
    padded: bool = False,
    pool: int | None = None,
) -> list[list[int]]:
    """The batches of one rank in one epoch, each a list of indices into `lengths`.

    The result depends only on the arguments and is the same on every machine; ranks need not communicate. Over all
    ranks every index occurs once, every rank has the same number of batches, none of them empty, and batch k takes
    about the same work on all ranks. No batch exceeds `batch_size` or `tokens`.

    Args:
        lengths: `(B,)` list, tuple, NumPy array or tensor of whole numbers, 0 allowed. An integer array is not
            copied, so do not change it meanwhile; it may be a memory map.
        batch_size: maximum sequences per batch on each rank.
        tokens: maximum rows per batch on each rank; give this or `batch_size`. A sequence of length 0 counts as
            one row. A sequence longer than `tokens` becomes a batch of its own, with a warning.
        policy: `"random"`: random batches, as in a shuffled `DataLoader`. `"bucket"`: sequences of about the same
            length, from a random pool, in random order. `"sorted"`: longest first, the same in every epoch.
            `"binpack"`: batches of up to `tokens` rows, filled by best fit, longest first, from a random pool, in
            random order.
        seed, epoch: both seed the random numbers.
        world_size, rank: the number of ranks that share the sequences, and the rank of this plan.
        padded: whether the batches will be padded: `tokens` then bounds the cells of the grid, and with `batch_size`
            the ranks of a step get sequences of about the same length instead of the same number of rows.
        pool: sequences planned at a time. Larger pools pack better but need more memory; smaller ones mix better.
            By default some thousands to a million, depending on the policy.

    Raises:
        LengthsError: lengths that are negative or not whole; fewer sequences than ranks; or sequences that
            cannot be distributed evenly within the budget (5 to 2 ranks with `batch_size=1`).
        ValueError: invalid options.

    >>> plan([4, 6, 8, 5, 4, 3, 7, 8], tokens=16, policy="binpack", seed=1)
    [[3, 0, 4, 5], [2, 7], [6, 1]]
    """
    rule = rule_of(batch_size=batch_size, tokens=tokens, policy=policy, padded=padded, world_size=world_size)
    rank, epoch = checked_rank(rank, rule.world_size), whole("epoch", epoch, 0)
    steps = Planner(lengths, rule, seed=seed, pool=pool).batches(epoch, rank)
    return [batch.tolist() for batch in steps]

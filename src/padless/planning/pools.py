"""Turns a pool of sequences into whole steps with one batch per rank: sort, cut, split, deal, shuffle."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..errors import LengthsError
from .cut import best_fit, cut_cells, cut_rows, split_evenly
from .deal import deal_longest_first, deal_runs
from .order import shuffled

__all__ = ["POLICIES", "Rule", "batch_in_step", "check_count", "plan_pool", "step_start"]

POLICIES = ("random", "bucket", "sorted", "binpack")

Numbers = NDArray[np.int64]


@dataclass(frozen=True)
class Rule:
    """How batches are made; already checked."""

    policy: str
    batch_size: int | None  # sequences per batch,
    tokens: int | None  # or rows, or cells if padded
    padded: bool
    world_size: int

    @property
    def step_size(self) -> int:
        """Sequences per step; 0 if their rows are bounded instead."""
        return (self.batch_size or 0) * self.world_size


def step_start(step: int, size: int, count: int, ranks: int) -> int:
    """The start of a step of `size` of `count` sequences, such that the last step has one for each of `ranks`."""
    return count if step * size >= count else min(step * size, count - ranks)


def batch_in_step(rank: int, step: int, ranks: int) -> int:
    """The batch of a step that a rank takes; the batch with the longest sequence rotates between the ranks."""
    return (rank + step) % ranks


def check_count(count: int, rule: Rule, name: str = "lengths") -> None:
    """Raise LengthsError if `count` sequences are too few for all ranks, or certainly cannot be distributed evenly."""
    if count < rule.world_size:
        raise LengthsError(
            f"{name} has {count} sequences for world_size={rule.world_size}: every rank needs at least one"
        )
    if rule.batch_size == 1 and count % rule.world_size:
        raise LengthsError(
            f"{count} sequences cannot be distributed evenly over world_size={rule.world_size} with batch_size=1: "
            f"leave out {count % rule.world_size}, or raise batch_size"
        )


def plan_pool(costs: Numbers, rule: Rule, seed: int, *key: int) -> tuple[Numbers, Numbers]:
    """The order of a pool's sequences, and the bounds of its batches: `world_size` per step, step after step.

    Args:
        costs: `(n,)` rows of each sequence, at least 1, in the order of the epoch.
        seed, key: determine the order of the steps.

    Raises:
        LengthsError: too many sequences are alone in their batch for the batches to be distributed evenly.
    """
    order = np.arange(len(costs)) if rule.policy == "random" else (-costs).argsort(kind="stable")
    if rule.tokens is None:
        new, bounds = _by_number(costs[order], rule)
    else:
        new, bounds = _by_tokens(costs[order], rule, rule.tokens)
    order = order[new]
    if rule.policy in ("bucket", "binpack"):
        order, bounds = _shuffled_steps(order, bounds, rule.world_size, seed, *key)
    return order, bounds


def _by_number(costs: Numbers, rule: Rule) -> tuple[Numbers, Numbers]:
    count, size, ranks = len(costs), rule.step_size, rule.world_size
    steps = -(-count // size)
    bounds = np.array([step_start(step, size, count, ranks) for step in range(steps + 1)])
    if ranks == 1:
        return np.arange(count), bounds
    if rule.padded:
        return _grouped(deal_runs(costs, bounds, ranks))
    return _grouped(deal_longest_first(costs, bounds, ranks, size // ranks))


def _by_tokens(costs: Numbers, rule: Rule, tokens: int) -> tuple[Numbers, Numbers]:
    order, ranks = np.arange(len(costs)), rule.world_size
    if rule.padded:
        bounds = cut_cells(costs, tokens)
    elif rule.policy == "binpack":
        order, bounds = best_fit(costs, tokens)
    else:
        bounds = cut_rows(costs, tokens)
    is_packed = rule.policy == "binpack"
    dealt = split_evenly(bounds, ranks)
    if dealt is None and not is_packed:
        # Sequences that cannot be dealt as the policy orders them may still fit together otherwise.
        order = (-costs).argsort(kind="stable")
        if rule.padded:
            bounds = cut_cells(costs[order], tokens)
        else:
            packed, bounds = best_fit(costs[order], tokens)
            order, is_packed = order[packed], True
        dealt = split_evenly(bounds, ranks)
    if dealt is None:
        raise LengthsError(_not_distributed(len(costs), ranks, tokens))
    if ranks > 1 and not rule.padded and not is_packed:
        return _levelled(costs, dealt, ranks, tokens)
    return order, dealt


def _levelled(costs: Numbers, bounds: Numbers, ranks: int, tokens: int) -> tuple[Numbers, Numbers]:
    """The batches of each step, dealt again longest first if that keeps the budget and shortens the step."""
    old_batch = np.arange(len(bounds) - 1).repeat(np.diff(bounds))  # of each sequence
    new_batch = deal_longest_first(costs, bounds[::ranks], ranks, len(costs))
    order, new_bounds = _grouped(new_batch)
    old_rows = np.add.reduceat(costs, bounds[:-1]).reshape(-1, ranks)
    new_rows = np.add.reduceat(costs[order], new_bounds[:-1]).reshape(-1, ranks)
    is_alone = (np.diff(new_bounds) == 1).reshape(-1, ranks)
    is_better = ((new_rows <= tokens) | is_alone).all(1) & (new_rows.max(1) <= old_rows.max(1))
    return _grouped(np.where(is_better[old_batch // ranks], new_batch, old_batch))


def _grouped(batch_of: Numbers) -> tuple[Numbers, Numbers]:
    """The order of sequences, and bounds, that group them by batch; no batch is empty."""
    return batch_of.argsort(kind="stable"), np.append(0, np.bincount(batch_of).cumsum())


def _shuffled_steps(
    order: Numbers, bounds: Numbers, ranks: int, seed: int, *key: int
) -> tuple[Numbers, Numbers]:
    count = np.diff(bounds).reshape(-1, ranks)
    steps = shuffled(len(count), seed, *key)
    new_place = np.empty(len(steps), np.int64)
    new_place[steps] = np.arange(len(steps))
    moved = new_place.repeat(count.sum(1)).argsort(kind="stable")
    return order[moved], np.append(0, count[steps].cumsum())


def _not_distributed(count: int, ranks: int, tokens: int) -> str:
    return (
        f"{count % ranks} of the sequences cannot be distributed over world_size={ranks} with tokens={tokens}: too few "
        f"were found that fit together, and ranks would have different numbers of batches; leave out {count % ranks}, "
        "or raise tokens"
    )

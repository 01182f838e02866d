"""`LengthBatchSampler`: planned batches for a `DataLoader`, epoch after epoch; it can stop and resume anywhere."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch.distributed
from torch.utils.data import Sampler

from ..errors import StateError
from ..options import rank_of, whole
from ..planning import PLAN_VERSION, Planner, rule_of

__all__ = ["LengthBatchSampler"]


class LengthBatchSampler(Sampler[list[int]]):
    """Batches of indices by length, to be given to a `DataLoader` as its `batch_sampler`.

    What it yields for an epoch is `plan(lengths, ..., epoch=epoch)`, in memory for a pool of it. Each index comes
    once an epoch over all ranks, and every rank has the same number of batches, of about the same work.

    Call `set_epoch` before each epoch, or every epoch is the same. `state_dict` and `load_state_dict` stop in the
    middle of an epoch and go on there, with any number of workers.

    Args:
        lengths, batch_size, tokens, policy, seed, padded, pool: as of `plan`.
        world_size, rank: of `torch.distributed` where it is initialised, else 1 and 0.

    Raises:
        LengthsError, ValueError: as `plan`.

    >>> sampler = LengthBatchSampler([4, 6, 8, 5], batch_size=2, policy="sorted")
    >>> len(sampler), list(sampler)
    (2, [[2, 1], [3, 0]])
    """

    def __init__(
        self,
        lengths: Any,
        *,
        batch_size: int | None = None,
        tokens: int | None = None,
        policy: str = "random",
        seed: int = 0,
        world_size: int | None = None,
        rank: int | None = None,
        padded: bool = False,
        pool: int | None = None,
    ) -> None:
        world_size, self.rank = place_among_ranks(world_size, rank)
        rule = rule_of(
            batch_size=batch_size, tokens=tokens, policy=policy, padded=padded, world_size=world_size
        )
        self._planner = Planner(lengths, rule, seed=seed, pool=pool)
        self._checksum: int | None = None
        self._begin(0, 0, {0: 0})

    def _begin(self, epoch: int, done: int, marks: dict[int, int]) -> None:
        self._epoch = epoch
        self._done = done  # batches drawn in this epoch
        self._start = done  # where the next iteration starts, once
        self._marks = marks  # by pool, the batches before it, as far as known
        self._drawing: object = None  # the iteration that was begun last

    @property
    def epoch(self) -> int:
        """The epoch that the next iteration draws."""
        return self._epoch

    @property
    def sampler(self) -> LengthBatchSampler:
        """Itself: frameworks call `set_epoch` of a loader's `batch_sampler.sampler`."""
        return self

    @property
    def start(self) -> int:
        """How many batches the next iteration leaves out: 0, or those that a loaded state has behind it.

        So a loop counts the batches of the epoch by `for done, batch in enumerate(loader, sampler.start + 1)`.
        """
        return self._start

    def set_epoch(self, epoch: int) -> None:
        """Draw `epoch` from now on. The epoch that it already is goes on where a loaded state left it."""
        epoch = whole("epoch", epoch, 0)
        if epoch != self._epoch:
            self._begin(epoch, 0, {0: 0})

    def __len__(self) -> int:
        """Batches of this rank in the whole epoch, the same on every rank, wherever it goes on.

        With `tokens` the first call in an epoch plans all of it.
        """
        return self._planner.count(self._epoch, self._marks)

    def __repr__(self) -> str:
        rule = self._planner.rule
        size = f"batch_size={rule.batch_size}" if rule.tokens is None else f"tokens={rule.tokens}"
        return (
            f"{type(self).__name__}({len(self._planner.lengths)} lengths, {size}, policy={rule.policy!r}, "
            f"rank {self.rank} of {rule.world_size}, epoch {self._epoch})"
        )

    def __iter__(self) -> Iterator[list[int]]:
        # A DataLoader with workers makes two iterators and draws from one; so a start is used up by drawing.
        start, self._start = self._start, 0
        self._done = start
        drawing = self._drawing = object()
        for batch in self._planner.batches(self._epoch, self.rank, start, self._marks):
            if self._drawing is drawing:
                self._done += 1
            yield batch.tolist()

    def state_dict(self, batches_done: int | None = None) -> dict[str, Any]:
        """Where to go on: plain numbers and strings, the same on every rank.

        Args:
            batches_done: how many batches of this epoch the loop has finished, those before a resume included.
                A `DataLoader` with workers draws ahead, so only the loop can tell. None: those that were drawn,
                which is right without workers, and within a `StatefulDataLoader`.

        Raises:
            ValueError: more batches than the epoch has.
        """
        done = self._done if batches_done is None else whole("batches_done", batches_done, 0)
        if done > self._done and done > len(self):
            raise ValueError(f"batches_done must be at most {len(self)}, the batches of an epoch, got {done}")
        pool, before = self._planner.seek(done, self._marks)
        return {
            **self._identity(),
            "epoch": self._epoch,
            "batches_done": done,
            "pools_done": pool,
            "batches_before_pool": before,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where `state` was taken: the next iteration draws the rest of its epoch.

        Raises:
            StateError: a state of other lengths, another seed, world size, policy or budget, or of another version
                of the plan: its batches would be others; a state that is damaged, or none.
        """
        if not isinstance(state, Mapping):
            raise StateError(
                f"this is not the state of a LengthBatchSampler: it is of type {type(state).__name__}"
            )
        for name in self.state_dict():
            if name not in state:
                raise StateError(f"this is not the state of a LengthBatchSampler: it has no {name!r}")
        for name, own in self._identity().items():
            if state[name] != own:
                raise StateError(
                    f"this state has {name}={state[name]!r}, but the sampler has {name}={own!r}: "
                    f"it would draw other batches than those that are done"
                )
        epoch, done, pool, before = self._place_of(state)
        self._begin(epoch, done, {0: 0, pool: before})

    def _place_of(self, state: Mapping[str, Any]) -> tuple[int, int, int, int]:
        """Epoch, batches and pools done, and batches before the pool, as far as they can be without planning it."""
        names = ("epoch", "batches_done", "pools_done", "batches_before_pool")
        try:
            epoch, done, pool, before = (whole(name, state[name], 0) for name in names)
        except ValueError as error:
            raise StateError(f"this state is damaged: {error}") from None
        planner = self._planner
        most = len(planner.lengths) // planner.rule.world_size if planner.steps is None else planner.steps
        if done > most:
            raise StateError(
                f"this state is damaged: batches_done={done}, and an epoch has at most {most} batches"
            )
        if pool >= len(planner.bounds) or before > done or (before and not pool):
            raise StateError(
                f"this state is damaged: pools_done={pool}, batches_before_pool={before} and batches_done={done}"
            )
        return epoch, done, pool, before

    def _identity(self) -> dict[str, Any]:
        """All that batches follow from, but for the epoch and the rank."""
        planner, rule = self._planner, self._planner.rule
        if self._checksum is None:
            self._checksum = planner.lengths.checksum()
        return {
            "plan_version": PLAN_VERSION,
            "sequences": len(planner.lengths),
            "rows": planner.lengths.rows,
            "lengths_checksum": self._checksum,
            "policy": rule.policy,
            "batch_size": rule.batch_size,
            "tokens": rule.tokens,
            "padded": rule.padded,
            "pool": planner.pool,
            "seed": planner.seed,
            "world_size": rule.world_size,
        }


def place_among_ranks(world_size: int | None, rank: int | None) -> tuple[int, int]:
    """World size and rank as given; of `torch.distributed` where none is given and it is initialised; else 1 and 0.

    Raises:
        ValueError: one of the two is given, and it does not tell the other.
    """
    if world_size is None and rank is None:
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            return torch.distributed.get_world_size(), torch.distributed.get_rank()
        return 1, 0
    if world_size is None or (rank is None and world_size != 1):
        given = f"world_size={world_size}" if rank is None else f"rank={rank}"
        raise ValueError(f"give both world_size and rank, or neither; got {given}")
    world_size = whole("world_size", world_size, 1)
    return world_size, rank_of(0 if rank is None else rank, world_size)

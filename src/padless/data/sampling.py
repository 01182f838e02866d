"""`LengthBatchSampler`: planned batches for a `DataLoader`, epoch after epoch, which can stop and resume anywhere."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch.distributed
from torch.utils.data import Sampler

from ..errors import StateError
from ..options import checked_rank, whole
from ..planning import PLAN_VERSION, Planner, PoolStarts, rule_of

__all__ = ["LengthBatchSampler", "place_among_ranks"]


class LengthBatchSampler(Sampler[list[int]]):
    """Batches of indices by length, for the `batch_sampler` argument of a `DataLoader`.

    In each epoch it yields `plan(lengths, ..., epoch=epoch)`, holding one pool at a time in memory. Over all ranks
    each index occurs once per epoch, and every rank has the same number of batches, of about the same work.

    Call `set_epoch` before each epoch; otherwise all epochs are the same. `state_dict` and `load_state_dict` save and
    resume in the middle of an epoch, with any number of workers.

    Args:
        lengths, batch_size, tokens, policy, seed, padded, pool: as in `plan`.
        world_size, rank: default to those of `torch.distributed` if it is initialised, else 1 and 0.

    Raises:
        LengthsError, ValueError: as in `plan`.

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
        self._begin(0, 0, PoolStarts())

    def _begin(self, epoch: int, done: int, pool_starts: PoolStarts) -> None:
        self._epoch = epoch
        self._done = done  # batches drawn in this epoch
        self._start = done  # where the next iteration starts, once
        self._pool_starts = pool_starts
        self._drawing: object = None  # the iteration that started last

    @property
    def epoch(self) -> int:
        """The epoch of the next iteration."""
        return self._epoch

    @property
    def sampler(self) -> LengthBatchSampler:
        """The sampler itself: frameworks call `set_epoch` on a loader's `batch_sampler.sampler`."""
        return self

    @property
    def start(self) -> int:
        """How many batches the next iteration skips: 0, or those already done in a loaded state.

        To count the batches of an epoch, use `for done, batch in enumerate(loader, sampler.start + 1)`.
        """
        return self._start

    def set_epoch(self, epoch: int) -> None:
        """Use `epoch` from now on. The current epoch continues where a loaded state stopped."""
        epoch = whole("epoch", epoch, 0)
        if epoch != self._epoch:
            self._begin(epoch, 0, PoolStarts())

    def __len__(self) -> int:
        """Batches of this rank in the whole epoch, even when resumed; the same on every rank.

        With `tokens` the first call in an epoch plans the whole epoch.
        """
        return self._planner.batch_count(self._epoch, self._pool_starts)

    def __repr__(self) -> str:
        rule = self._planner.rule
        size = f"batch_size={rule.batch_size}" if rule.tokens is None else f"tokens={rule.tokens}"
        return (
            f"{type(self).__name__}({len(self._planner.lengths)} lengths, {size}, policy={rule.policy!r}, "
            f"rank {self.rank} of {rule.world_size}, epoch {self._epoch})"
        )

    def __iter__(self) -> Iterator[list[int]]:
        # A DataLoader with workers makes two iterators and uses one, so drawing, not creating one, resets the start.
        start, self._start = self._start, 0
        self._done = start
        drawing = self._drawing = object()
        for batch in self._planner.batches(self._epoch, self.rank, start, self._pool_starts):
            if self._drawing is drawing:
                self._done += 1
            yield batch.tolist()

    def state_dict(self, batches_done: int | None = None) -> dict[str, Any]:
        """The state to resume from: plain numbers and strings, the same on every rank.

        Args:
            batches_done: how many batches of this epoch the loop has finished, including those before a resume.
                A `DataLoader` with workers prefetches, so only the loop knows. None: the number of batches drawn,
                which is correct without workers and inside a `StatefulDataLoader`.

        Raises:
            ValueError: `batches_done` exceeds the batches of the epoch.
        """
        done = self._done if batches_done is None else whole("batches_done", batches_done, 0)
        if done > self._done and done > len(self):
            raise ValueError(f"batches_done must be at most {len(self)}, the batches of an epoch, got {done}")
        pool, before = self._planner.seek(done, self._pool_starts)
        place = {
            "epoch": self._epoch,
            "batches_done": done,
            "pools_done": pool,
            "batches_before_pool": before,
        }
        return {**self._identity(), **place, "place_checksum": _checksum(place.values())}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Resume from `state`: the next iteration yields the rest of its epoch.

        Raises:
            StateError: the state has other lengths, another seed, world size, policy or budget, or another version
                of the plan, so the batches would differ; or it is damaged, or not a sampler's state.
        """
        if not isinstance(state, Mapping):
            raise StateError(
                f"this is not the state of a LengthBatchSampler: it is of type {type(state).__name__}"
            )
        for name in self.state_dict():
            if name not in state and name != "place_checksum":  # which older states lack
                raise StateError(f"this is not the state of a LengthBatchSampler: it has no {name!r}")
        for name, own in self._identity().items():
            if not _is_equal(state[name], own):
                raise StateError(
                    f"this state has {name}={state[name]!r}, but the sampler has {name}={own!r}: "
                    f"its batches would differ from those already done"
                )
        epoch, done, pool, before = self._place_of(state)
        self._begin(epoch, done, PoolStarts(pool, before))

    def _place_of(self, state: Mapping[str, Any]) -> tuple[int, int, int, int]:
        """Epoch, batches done, pools done and batches before the pool, checked as far as possible without planning."""
        names = ("epoch", "batches_done", "pools_done", "batches_before_pool")
        try:
            epoch, done, pool, before = (whole(name, state[name], 0) for name in names)
        except ValueError as error:
            raise StateError(f"this state is damaged: {error}") from None
        planner = self._planner
        most = planner.fixed_batch_count
        if most is None:
            most = len(planner.lengths) // planner.rule.world_size
        if done > most:
            raise StateError(
                f"this state is damaged: batches_done={done}, and an epoch has at most {most} batches"
            )
        if pool >= len(planner.bounds) or before > done or (before and not pool):
            raise StateError(
                f"this state is damaged: pools_done={pool}, batches_before_pool={before} and batches_done={done}"
            )
        checksum = _checksum((epoch, done, pool, before))
        if not _is_equal(state.get("place_checksum", checksum), checksum):
            raise StateError(
                f"this state is damaged: place_checksum={state['place_checksum']!r}, but epoch={epoch}, "
                f"batches_done={done}, pools_done={pool} and batches_before_pool={before} have {checksum}"
            )
        return epoch, done, pool, before

    def _identity(self) -> dict[str, Any]:
        """Everything that determines the batches, except the epoch and the rank."""
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


def _is_equal(value: Any, own: Any) -> bool:
    """Whether a value of a state is `own`; False for arrays and tensors of several numbers."""
    try:
        return bool(value == own)
    except (ValueError, RuntimeError):
        return False


def _checksum(place: Iterable[int]) -> int:
    """Checksum of the numbers that tell where to resume."""
    return zlib.crc32(",".join(map(str, place)).encode())


def place_among_ranks(world_size: int | None, rank: int | None) -> tuple[int, int]:
    """World size and rank as given; if None, those of `torch.distributed` if it is initialised, else 1 and 0.

    Raises:
        ValueError: only one is given, and the other does not follow from it.
    """
    if world_size is None and rank is None:
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            return torch.distributed.get_world_size(), torch.distributed.get_rank()
        return 1, 0
    if world_size is None or (rank is None and world_size != 1):
        given = f"world_size={world_size}" if rank is None else f"rank={rank}"
        raise ValueError(f"give both world_size and rank, or neither; got {given}")
    world_size = whole("world_size", world_size, 1)
    return world_size, checked_rank(0 if rank is None else rank, world_size)

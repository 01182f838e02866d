"""`StreamBatches`: batches by length, from samples whose lengths are only known when they are read."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import torch
from torch.utils.data import IterableDataset, get_worker_info

from ..errors import LengthsError
from ..lengths import as_length
from ..options import warn, whole
from ..planning import Rule, rule_of
from ..planning.checks import MOST_ROWS
from ..planning.order import shuffled
from ..planning.pools import batch_in_step, check_count, plan_pool
from .sampling import place_among_ranks

__all__ = ["StreamBatches"]

_ORDER, _STEP_ORDER = 0, 1  # keys of the random numbers


class StreamBatches(IterableDataset[list[Any]]):
    """Batches by length, as lists of samples, from a stream whose lengths are not known in advance.

    `DataLoader(stream, batch_size=None, collate_fn=collate)` makes them `Packed`, with any number of workers.
    Samples are collected in a pool, shuffled there and batched by length; call `set_epoch` before each epoch,
    otherwise all epochs are the same.

    *An iterable* is read completely by every worker of every rank, and each keeps its own batches of one plan. So
    each sample occurs once per epoch, every rank has the same number of batches, of about the same work, and batches
    and their order do not depend on the number of workers. Every process must see the same samples in the same order.
    Do expensive work late: stream paths or bytes, and decode them in `collate_fn`.

    *A function* of `(shard, shards)` returns a separate iterable for each worker of each rank. So each sample is read
    only once, but ranks may have different numbers of batches: end the epoch on all ranks when the first one is done,
    or use `torch.distributed.algorithms.Join`.

    Args:
        source: an iterable, or a function of `(shard, shards)` that returns one. If it has a `set_epoch`, that is
            called too.
        length: function that returns the length of a sample.
        batch_size, tokens, policy, seed, padded: as in `plan`, applied to each pool; policy `"sorted"` is not allowed.
        world_size, rank: default to those of `torch.distributed` if it is initialised, else 1 and 0.
        pool: samples per pool, at least one step of all ranks; up to twice as many are in memory.

    Raises:
        LengthsError: while iterating: fewer samples than ranks, samples that cannot be dealt evenly, or lengths that
            are negative, not whole or too large, as in `plan`.
        TypeError, ValueError: invalid options.

    >>> words = "a sequence has a length and a batch is a rectangle".split()
    >>> stream = StreamBatches(words, len, batch_size=4, seed=2)
    >>> list(stream)
    [['a', 'a', 'a'], ['rectangle', 'sequence', 'length', 'batch'], ['and', 'has', 'is', 'a']]
    """

    def __init__(
        self,
        source: Iterable[Any] | Callable[[int, int], Iterable[Any]],
        length: Callable[[Any], int] = len,
        *,
        batch_size: int | None = None,
        tokens: int | None = None,
        policy: str = "bucket",
        seed: int = 0,
        world_size: int | None = None,
        rank: int | None = None,
        padded: bool = False,
        pool: int = 4096,
    ) -> None:
        if not isinstance(source, Iterable) and not callable(source):
            raise TypeError(
                f"source must be an iterable or a function of (shard, shards), got {type(source).__name__}"
            )
        if not callable(length):
            raise TypeError(f"length must be a function of a sample, got {type(length).__name__}")
        self._source = source
        self._length = length
        self._seed = whole("seed", seed, 0)
        world_size, self.rank = place_among_ranks(world_size, rank)
        if policy == "sorted":
            raise ValueError("policy 'sorted' needs all lengths at once, which a stream does not know")
        self._rule = rule_of(
            batch_size=batch_size, tokens=tokens, policy=policy, padded=padded, world_size=world_size
        )
        self._pool = whole("pool", pool, 1)
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()  # shared with persistent workers

    def set_epoch(self, epoch: int) -> None:
        """Use `epoch`, below 2**63, from the next iteration on, also in persistent workers."""
        epoch = whole("epoch", epoch, 0)
        if epoch >= 2**63:  # it is shared as an int64
            raise ValueError(f"epoch must be below 2**63, got {epoch}")
        self._epoch.fill_(epoch)

    def __iter__(self) -> Iterator[list[Any]]:
        worker = get_worker_info()
        number, workers = (worker.id, worker.num_workers) if worker else (0, 1)
        epoch, ranks = int(self._epoch), self._rule.world_size
        if hasattr(self._source, "set_epoch"):
            self._source.set_epoch(epoch)  # type: ignore[union-attr]
        if not isinstance(self._source, Iterable):
            shard, shards = self.rank * workers + number, ranks * workers
            alone = dataclasses.replace(self._rule, world_size=1)
            yield from self._batches(self._source(shard, shards), alone, 0, epoch, shard)
            return
        if isinstance(self._source, IterableDataset) and workers * ranks > 1:
            raise TypeError(
                f"source is an IterableDataset ({type(self._source).__name__}), which may split itself among "
                f"workers and ranks: pass a function of (shard, shards) that returns it, or its part"
            )
        for step, batch in enumerate(self._batches(self._source, self._rule, self.rank, epoch, None)):
            if step % workers == number:  # a DataLoader reads from its workers in turn
                yield batch

    def _batches(
        self, samples: Iterable[Any], rule: Rule, rank: int, epoch: int, shard: int | None
    ) -> Iterator[list[Any]]:
        """The batches of `rank`, step after step, from all samples or from one shard."""
        ranks, step = rule.world_size, 0
        for number, (pool, lengths) in enumerate(self._pools(samples, rule, whole_stream=shard is None)):
            key = (epoch, shard or 0, number)
            order = shuffled(len(pool), self._seed, *key, _ORDER)
            planned, bounds = plan_pool(np.maximum(lengths, 1)[order], rule, self._seed, *key, _STEP_ORDER)
            order = order[planned]
            for here in range((len(bounds) - 1) // ranks):
                batch = here * ranks + batch_in_step(rank, step, ranks)
                yield [pool[i] for i in order[bounds[batch] : bounds[batch + 1]]]
                step += 1
            del pool  # free it before the next one is read

    def _pools(
        self, samples: Iterable[Any], rule: Rule, *, whole_stream: bool
    ) -> Iterator[tuple[list[Any], list[int]]]:
        """Samples and their lengths, pool by pool; the last may be up to twice as large, so that none is small."""
        unit = rule.step_size or rule.world_size  # whole steps, or at least a multiple of the ranks
        size = max(self._pool // unit, 1) * unit
        held, lengths, rows, count, warned = [], [], 0, 0, False
        for sample in samples:
            if len(held) == 2 * size:
                yield held[:size], lengths[:size]
                rows -= sum(lengths[:size])
                del held[:size], lengths[:size]
            length = as_length(self._length(sample), count, "the stream's lengths")
            rows += length
            if rows > MOST_ROWS:
                raise LengthsError(f"the length of sample {count}, {length}, is too large: the sum overflows")
            if rule.tokens is not None and length > rule.tokens and not warned:
                warned = True
                warn(
                    f"sample {count} of the stream has length {length}, over tokens={rule.tokens}: "
                    f"it is a batch of its own, and so is every other such sample"
                )
            held.append(sample)
            lengths.append(length)
            count += 1
        if whole_stream:
            if not count and isinstance(samples, Iterator):
                raise LengthsError(
                    "the stream is an exhausted iterator: pass an iterable that starts again in every epoch"
                )
            check_count(count, rule, "the stream")
        if held:
            yield held, lengths

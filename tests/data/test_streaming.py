"""Batches of a stream: each sample once, alike on every rank and with any number of workers, in a bounded pool."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import DataLoader, IterableDataset

from padless import LengthsError, Packed, pack, waste
from padless.data import StreamBatches, collate

SAMPLES = [(i, int(n)) for i, n in enumerate(np.random.default_rng(1).integers(0, 30, 101))]


def length_of(sample: tuple[int, int]) -> int:
    return sample[1]


def streamed(samples: Any, **options: Any) -> StreamBatches:
    return StreamBatches(samples, length_of, **options)


def epochs_of(streams: list[StreamBatches]) -> list[list[list[Any]]]:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "sample .* of the stream has length")
        return [list(stream) for stream in streams]


def shard_of_samples(shard: int, shards: int) -> list[tuple[int, int]]:
    return SAMPLES[shard::shards]


def identity(batch: Any) -> Any:
    return batch


def loader_of(stream: StreamBatches, kind: type = DataLoader, **settings: Any) -> DataLoader[Any]:
    return kind(stream, batch_size=None, collate_fn=identity, **settings)


@st.composite
def cases(draw: st.DrawFn) -> tuple[list[tuple[int, int]], dict[str, Any]]:
    world_size = draw(st.integers(1, 3))
    # A multiple of the ranks, which goes round however few sequences go together.
    count = world_size * draw(st.integers(1, 25))
    lengths = draw(st.lists(st.one_of(st.integers(0, 9), st.just(60)), min_size=count, max_size=count))
    options = {
        "world_size": world_size,
        "policy": draw(st.sampled_from(["random", "bucket", "binpack"])),
        "pool": draw(st.integers(1, 30)),
        "seed": draw(st.integers(0, 9)),
        "padded": draw(st.booleans()),
    }
    if options["policy"] == "binpack" or draw(st.booleans()):
        options["tokens"] = draw(st.integers(1, 50))
    else:
        options["batch_size"] = draw(st.integers(1, 6))
    return list(enumerate(lengths)), options


# ---- what holds for every stream ----------------------------------------------------------------------


@given(cases())
def test_every_sample_comes_once_and_every_rank_has_the_same_number_of_batches(case):
    samples, options = case
    epochs = epochs_of([streamed(samples, rank=rank, **options) for rank in range(options["world_size"])])
    assert sorted(sample for batches in epochs for batch in batches for sample in batch) == samples
    assert len({len(batches) for batches in epochs}) == 1


@given(cases())
def test_no_batch_exceeds_its_budget_unless_it_is_one_sample(case):
    samples, options = case
    for batch in epochs_of([streamed(samples, rank=0, **options)])[0]:
        assert batch
        if "batch_size" in options:
            assert len(batch) <= options["batch_size"]
        else:
            lengths = [length_of(sample) for sample in batch]
            cost = len(batch) * max(lengths) if options["padded"] else sum(lengths)
            assert cost <= options["tokens"] or len(batch) == 1


@given(cases())
def test_an_epoch_follows_from_its_seed(case):
    samples, options = case
    once, again = epochs_of([streamed(samples, rank=0, **options) for _ in range(2)])
    assert once == again


def test_epochs_differ_and_come_back():
    stream = streamed(SAMPLES, batch_size=4)
    first = list(stream)
    stream.set_epoch(1)
    second = list(stream)
    stream.set_epoch(0)
    assert list(stream) == first != second


def test_streams_are_batched_by_length():
    lengths = np.random.default_rng(0).lognormal(4, 0.7, 20_000).astype(int) + 1
    batches = list(StreamBatches(lengths.tolist(), int, batch_size=32))
    rows, cells = sum(map(sum, batches)), sum(len(batch) * max(batch) for batch in batches)
    assert rows / cells > 0.85 > waste(lengths, batch_size=32).fill


@pytest.mark.parametrize("count", [0, 1, 7, 8, 9, 15, 16, 17, 40])
def test_no_more_than_two_pools_are_held_and_the_last_is_not_small(count):
    read = 0

    def reading() -> Iterator[tuple[int, int]]:
        nonlocal read
        for i in range(count):
            read = i + 1
            yield i, 1

    given_out = 0
    sizes = []
    for batch in streamed(lambda shard, shards: reading(), batch_size=2, pool=8):
        assert read - given_out <= 16 + 1  # one more has been read when a pool is full
        given_out += len(batch)
        sizes.append(len(batch))
    assert given_out == count
    assert sizes.count(2) == count // 2


# ---- workers and ranks ----------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [1, 2])
def test_batches_and_their_order_are_the_same_for_any_number_of_workers(workers):
    stream = streamed(SAMPLES, tokens=70, world_size=2, rank=1, pool=20)
    loader = loader_of(stream, num_workers=workers, persistent_workers=True)
    for epoch in (0, 3):
        stream.set_epoch(epoch)
        assert list(loader) == list(stream)


def test_a_function_gives_each_worker_of_each_rank_a_shard_of_its_own():
    asked = []

    def source(shard: int, shards: int) -> list[tuple[int, int]]:
        asked.append((shard, shards))
        return shard_of_samples(shard, shards)

    epochs = [list(streamed(source, batch_size=4, world_size=3, rank=rank)) for rank in range(3)]
    assert asked == [(0, 3), (1, 3), (2, 3)]
    assert sorted(sample for batches in epochs for batch in batches for sample in batch) == SAMPLES


def test_workers_of_a_sharded_stream_read_each_sample_once():
    loaders = [
        loader_of(streamed(shard_of_samples, batch_size=4, world_size=2, rank=rank), num_workers=2)
        for rank in range(2)
    ]
    assert sorted(sample for loader in loaders for batch in loader for sample in batch) == SAMPLES


def test_a_shard_may_be_empty():
    assert list(streamed(lambda shard, shards: [], batch_size=4, world_size=2, rank=1)) == []


def test_set_epoch_reaches_the_source():
    class Source(list):
        epochs: list[int] = []  # noqa: RUF012

        def set_epoch(self, epoch: int) -> None:
            self.epochs.append(epoch)

    stream = streamed(Source(SAMPLES), batch_size=4)
    stream.set_epoch(7)
    list(stream)
    assert Source.epochs == [7]


def test_a_stateful_loader_goes_on_in_the_middle():
    kind = pytest.importorskip("torchdata.stateful_dataloader").StatefulDataLoader
    whole = list(streamed(SAMPLES, batch_size=4))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "'set_vital' is deprecated")
        loader, again = (loader_of(streamed(SAMPLES, batch_size=4), kind, num_workers=2) for _ in range(2))
    drawing = iter(loader)
    begun = [next(drawing) for _ in range(5)]
    again.load_state_dict(loader.state_dict())  # type: ignore[attr-defined]
    assert begun + list(again) == whole


def test_batches_are_packed_by_collate():
    rows = [torch.arange(length) for _, length in SAMPLES]
    loader = DataLoader(StreamBatches(rows, batch_size=4), batch_size=None, collate_fn=collate, num_workers=2)
    batches = list(loader)
    assert all(isinstance(batch, Packed) for batch in batches)
    assert sum(len(batch) for batch in batches) == len(SAMPLES)
    assert sum(batch.data.sum() for batch in batches) == pack(rows).data.sum()


# ---- errors -----------------------------------------------------------------------------------------------


class Stream(IterableDataset):
    def __iter__(self) -> Iterator[tuple[int, int]]:
        return iter(SAMPLES)


def test_a_dataset_that_may_share_itself_out_is_refused_where_there_are_several_readers():
    assert sum(len(batch) for batch in streamed(Stream(), batch_size=4)) == len(SAMPLES)
    with pytest.raises(TypeError) as caught:
        next(iter(streamed(Stream(), batch_size=4, world_size=2, rank=0)))
    assert str(caught.value) == (
        "source is an IterableDataset (Stream), which may split itself among workers and ranks: "
        "pass a function of (shard, shards) that returns it, or its part"
    )
    with pytest.raises(TypeError, match="source is an IterableDataset"):
        next(iter(loader_of(streamed(Stream(), batch_size=4), num_workers=2)))


def test_a_sample_over_the_budget_is_reported_once():
    with pytest.warns(UserWarning) as caught:
        batches = list(streamed([(0, 1), (1, 9), (2, 8), (3, 2)], tokens=5))
    assert sorted(map(len, batches)) == [1, 1, 2]
    assert [str(warning.message) for warning in caught] == [
        (
            "sample 1 of the stream has length 9, over tokens=5: "
            "it is a batch of its own, and so is every other such sample"
        )
    ]
    assert caught[0].filename == __file__


@pytest.mark.parametrize(
    ("samples", "options", "message"),
    [
        ([], {}, "the stream has 0 sequences for world_size=1: every rank needs at least one"),
        (
            SAMPLES[:2],
            {"world_size": 3, "rank": 0},
            "the stream has 2 sequences for world_size=3: every rank needs at least one",
        ),
        (
            SAMPLES[:5],
            {"world_size": 2, "rank": 0, "batch_size": 1},
            (
                "5 sequences cannot be distributed evenly over world_size=2 with batch_size=1: leave out 1, or "
                "raise batch_size"
            ),
        ),
    ],
)
def test_streams_too_short_for_all_ranks_are_an_error(samples, options, message):
    with pytest.raises(LengthsError) as caught:
        list(streamed(samples, **{"batch_size": 2, **options}))
    assert str(caught.value) == message


def test_an_iterator_that_was_read_through_is_reported():
    stream = StreamBatches(iter(SAMPLES[:4]), len, batch_size=2)
    assert len(list(stream)) == 2
    with pytest.raises(LengthsError) as caught:
        list(stream)
    assert str(caught.value) == (
        "the stream is an exhausted iterator: pass an iterable that starts again in every epoch"
    )


def test_what_is_no_stream_is_an_error():
    with pytest.raises(TypeError) as caught:
        StreamBatches(7, batch_size=2)  # type: ignore[arg-type]
    assert str(caught.value) == "source must be an iterable or a function of (shard, shards), got int"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"policy": "sorted"}, "policy 'sorted' needs all lengths at once, which a stream does not know"),
        ({"pool": 0}, "pool must be a whole number of at least 1, got 0"),
        ({"tokens": 2}, "give either batch_size or tokens, got both"),
    ],
)
def test_options_that_make_no_sense_are_named(options, message):
    with pytest.raises(ValueError) as caught:
        StreamBatches([], **{"batch_size": 2, **options})
    assert str(caught.value) == message


def test_a_length_that_is_no_function_is_reported_at_once():
    with pytest.raises(TypeError, match="^length must be a function of a sample, got int$"):
        StreamBatches(["a", "b"], 5, batch_size=4)  # type: ignore[arg-type]


@pytest.mark.parametrize("pool", [1, 4])
def test_lengths_whose_sum_overflows_are_refused(pool):
    lengths = [2**60] * 5
    stream = StreamBatches(lengths, lambda length: length, tokens=2**62, pool=pool)
    if pool == 1:  # so two samples are in memory at a time
        assert sum(map(len, stream)) == 5
        stream._source = [2**61 + 1]
    with pytest.raises(
        LengthsError, match=r"^the length of sample \d, \d+, is too large: the sum overflows$"
    ):
        list(stream)


def test_an_epoch_over_64_bits_is_refused():
    with pytest.raises(ValueError, match=f"^epoch must be below 2\\*\\*63, got {2**63}$"):
        StreamBatches([], batch_size=1).set_epoch(2**63)


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        (-1, "the stream's lengths[1] = -1 is negative"),
        (0.5, "the stream's lengths[1] = 0.5 is not a whole number"),
        (True, "the stream's lengths[1] = True is not a whole number"),
        (None, "the stream's lengths[1] must be a whole number, got NoneType"),
    ],
)
def test_a_length_that_is_none_is_named_with_its_sample(wrong, text):
    with pytest.raises(LengthsError) as caught:
        list(StreamBatches([3, wrong], lambda sample: sample, batch_size=2))
    assert str(caught.value) == text


def test_whole_floats_are_lengths_of_a_stream_as_of_a_plan():
    assert sorted(map(sorted, StreamBatches([4.0, 2, 3.0], lambda sample: sample, tokens=5))) == [
        [2, 3.0],
        [4.0],
    ]

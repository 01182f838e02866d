"""Lengths of columns of Arrow tables and Hugging Face datasets; these datasets through sampler and stream."""

from __future__ import annotations

import functools
import sys
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from padless import LengthsError, Packed, PadlessError
from padless.data import LengthBatchSampler, StreamBatches, collate, column_lengths

pyarrow = pytest.importorskip("pyarrow")

IDS = [[i] * int(n) for i, n in enumerate(np.random.default_rng(0).integers(0, 9, 40))]
LENGTHS = [len(ids) for ids in IDS]


LISTS = [kind for kind in ("list_", "large_list", "list_view", "large_list_view") if hasattr(pyarrow, kind)]


@pytest.mark.parametrize("kind", LISTS)
def test_lengths_of_a_table_are_those_of_its_lists(kind):
    table = pyarrow.table(
        {"ids": pyarrow.array(IDS, getattr(pyarrow, kind)(pyarrow.int32())), "other": LENGTHS}
    )
    found = column_lengths(table, "ids")
    assert found.dtype == np.int64 and found.tolist() == LENGTHS
    pieces = pyarrow.concat_tables([table.slice(30), table.slice(0, 7)])
    assert column_lengths(pieces, "ids").tolist() == LENGTHS[30:] + LENGTHS[:7]


def test_lists_of_one_size_and_no_lists_at_all_have_lengths_too():
    table = pyarrow.table({"ids": pyarrow.array([[1, 2], [3, 4]], pyarrow.list_(pyarrow.int8(), 2))})
    assert column_lengths(table, "ids").tolist() == [2, 2]
    assert column_lengths(table.slice(0, 0), "ids").tolist() == []


@pytest.mark.parametrize(
    ("dataset", "column", "kind", "message"),
    [
        (pyarrow.table({"ids": [[1]]}), "id", KeyError, "no column 'id' among 'ids'; did you mean 'ids'?"),
        (pyarrow.table({"ids": [[1]]}), None, KeyError, "no column None among 'ids'"),
        (pyarrow.table({"text": ["a"]}), "text", TypeError, "column 'text' holds string, not lists"),
        (pyarrow.table({"ids": [[1], None]}), "ids", LengthsError, "column 'ids' is null in row 1, not a list"),
        (pyarrow.table([[1], [2]], names=["n", "n"]), "n", KeyError, "there are 2 columns 'n'"),
        ([[1]], "ids", TypeError, "column_lengths takes a datasets.Dataset or a pyarrow.Table, got list"),
    ],
    ids=["column", "no name", "strings", "null", "twice", "list"],
)  # fmt: skip
def test_what_has_no_lengths_is_named(dataset, column, kind, message):
    with pytest.raises(kind) as caught:
        column_lengths(dataset, column)
    assert caught.value.args[0] == message


def test_without_pyarrow_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(PadlessError, match=r"^column_lengths needs pyarrow: pip install pyarrow$"):
        column_lengths([[1]], "ids")


# ---- Hugging Face datasets ----------------------------------------------------------------------------


@pytest.fixture
def datasets(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> Any:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    return pytest.importorskip("datasets")


@pytest.fixture
def dataset(datasets: Any) -> Any:
    return datasets.Dataset.from_dict({"ids": IDS, "label": LENGTHS})


def test_lengths_of_a_dataset_follow_its_order_whatever_its_format(dataset):
    assert column_lengths(dataset, "ids").tolist() == LENGTHS
    for kind in ("torch", "numpy", "arrow"):
        assert column_lengths(dataset.with_format(kind), "ids").tolist() == LENGTHS
    mixed = dataset.shuffle(seed=1).select(range(25))
    assert column_lengths(mixed, "ids").tolist() == [len(row["ids"]) for row in mixed] != LENGTHS[:25]


def test_lengths_of_arrays_of_rows_are_their_first_dimension(datasets):
    features = datasets.Features({"x": datasets.Array2D(shape=(None, 2), dtype="float32")})
    rows = datasets.Dataset.from_dict({"x": [[[1, 2]], [[1, 2], [3, 4], [5, 6]]]}, features=features)
    assert column_lengths(rows, "x").tolist() == [1, 3]


def test_a_streaming_dataset_has_no_lengths(dataset):
    with pytest.raises(
        TypeError, match=r"^column_lengths takes a datasets\.Dataset or a pyarrow\.Table, got Iter"
    ):
        column_lengths(dataset.to_iterable_dataset(), "ids")


@pytest.mark.parametrize("kind", [None, "torch", "numpy"])
@pytest.mark.parametrize("workers", [0, 2])
def test_a_dataset_of_any_format_becomes_packed_batches(kind, workers, dataset):
    sampler = LengthBatchSampler(column_lengths(dataset, "ids"), tokens=24, policy="binpack")
    loader = DataLoader(
        dataset.with_format(kind), batch_sampler=sampler, collate_fn=collate, num_workers=workers
    )
    for batch, indices in zip(loader, sampler, strict=True):
        assert isinstance(batch["ids"], Packed) and batch["ids"].dtype == torch.int64
        assert [ids.tolist() for ids in batch["ids"]] == [IDS[i] for i in indices]
        assert batch["label"].tolist() == [LENGTHS[i] for i in indices]


def part_of(rank: int, dataset: Any, shard: int, shards: int) -> Any:
    from datasets.distributed import split_dataset_by_node

    return split_dataset_by_node(dataset, rank, 2)  # a streaming dataset shares itself out among workers


@pytest.mark.parametrize("workers", [0, 2])
def test_a_streaming_dataset_is_read_once_over_ranks_and_workers(workers, dataset):
    streaming = dataset.to_iterable_dataset(num_shards=4)
    seen = []
    for rank in range(2):
        source = functools.partial(part_of, rank, streaming)
        stream = StreamBatches(
            source, lambda row: len(row["ids"]), batch_size=4, world_size=2, rank=rank, pool=8
        )
        loader = DataLoader(stream, batch_size=None, collate_fn=collate, num_workers=workers)
        seen += [ids.tolist() for batch in loader for ids in batch["ids"]]
    assert sorted(seen) == sorted(IDS)

"""Collating samples: what each kind of field becomes, alike in every batch; and who is named when samples differ."""

from __future__ import annotations

import functools
from collections import OrderedDict
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from padless import Packed, pack
from padless.data import LengthBatchSampler, collate

from .. import strategies


class Pair(NamedTuple):
    rows: Any
    label: Any


class Swapped(NamedTuple):
    label: Any
    rows: Any


def rows_of(length: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(length, 3, generator=torch.Generator().manual_seed(seed + length))


def same(batch: Any, sequences: list[Any]) -> bool:
    """Whether `batch` is a Packed of these sequences, of the same dtype."""
    assert isinstance(batch, Packed)
    expected = [torch.as_tensor(sequence) for sequence in sequences]
    return len(batch) == len(expected) and all(
        got.dtype == want.dtype and torch.equal(got, want) for got, want in zip(batch, expected, strict=True)
    )


# ---- what a field becomes ---------------------------------------------------------------------------


@given(strategies.lengths(min_batch=1), st.sampled_from(["tensor", "array"]))
def test_sequences_are_packed_whatever_their_lengths(lengths, kind):
    tensors = [rows_of(length, seed) for seed, length in enumerate(lengths)]
    batch = collate([tensor.numpy() if kind == "array" else tensor for tensor in tensors])
    assert same(batch, tensors)
    assert batch.lengths.tolist() == lengths


def test_sequences_of_equal_length_are_packed_too():
    assert same(collate([torch.ones(2), torch.zeros(2)]), [torch.ones(2), torch.zeros(2)])


def test_lists_of_numbers_are_sequences():
    assert same(collate([[1, 2, 3], [4]]), [[1, 2, 3], [4]])
    assert same(collate([[[1.5, 2.0]], [[3.0, 4.0], [5.0, 6.0]]]), [[[1.5, 2.0]], [[3.0, 4.0], [5.0, 6.0]]])


@pytest.mark.parametrize("samples", [[[], [1, 2]], [[1, 2], []]])
def test_an_empty_list_takes_the_dtype_of_the_others(samples):
    batch = collate(samples)
    assert batch.dtype == torch.int64 and batch.lengths.tolist() == [len(sample) for sample in samples]


@pytest.mark.parametrize("options", [{}, {"stack": ["ids"]}])
def test_empty_lists_alone_are_ids(options):
    ids = collate([{"ids": []}, {"ids": []}], **options)["ids"]
    assert ids.dtype == torch.int64 and getattr(ids, "data", ids).numel() == 0


def test_an_empty_list_takes_the_width_of_the_others():
    assert collate([[], [[1.0, 2.0]]]).data.shape == (1, 2)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([1, 2], torch.tensor([1, 2])),
        ([1.5, 2.0], torch.tensor([1.5, 2.0])),
        ([True, False], torch.tensor([True, False])),
        ([1j, 2j], torch.tensor([1j, 2j])),
        ([torch.tensor(1), torch.tensor(2)], torch.tensor([1, 2])),
        ([np.float64(1), np.float64(2)], torch.tensor([1.0, 2.0], dtype=torch.float64)),
        ([np.array(1, np.int16), np.array(2, np.int16)], torch.tensor([1, 2], dtype=torch.int16)),
        ([np.bool_(True), np.bool_(False)], torch.tensor([True, False])),
    ],
)
def test_numbers_are_stacked(values, expected):
    batch = collate(values)
    assert batch.dtype == expected.dtype and torch.equal(batch, expected)


@pytest.mark.parametrize("values", [["a", "bc"], [b"a", b""], [None, None], [{1}, {2}], [range(2), range(3)]])
def test_anything_else_is_a_list_of_what_came(values):
    batch = collate(values)
    assert type(batch) is list and batch == values


def test_fields_of_a_dict_are_collated_each_by_itself():
    samples = [OrderedDict(x=rows_of(n), label=n, name=str(n), meta={"ids": [n] * n}) for n in (2, 0, 3)]
    batch = collate(samples)
    assert type(batch) is dict and list(batch) == ["x", "label", "name", "meta"]
    assert same(batch["x"], [rows_of(n) for n in (2, 0, 3)])
    assert batch["label"].tolist() == [2, 0, 3]
    assert batch["name"] == ["2", "0", "3"]
    assert batch["meta"]["ids"].lengths.tolist() == [2, 0, 3]


def test_fields_of_a_tuple_are_collated_each_by_itself():
    batch = collate([(rows_of(2), 0), (rows_of(1), 1)])
    assert type(batch) is tuple
    assert same(batch[0], [rows_of(2), rows_of(1)]) and batch[1].tolist() == [0, 1]


def test_a_named_tuple_stays_one():
    batch = collate([Pair(rows_of(2), 0), Pair(rows_of(1), 1)])
    assert type(batch) is Pair
    assert same(batch.rows, [rows_of(2), rows_of(1)]) and batch.label.tolist() == [0, 1]


def test_fields_named_by_stack_are_stacked():
    samples = [{"x": rows_of(n), "meta": {"box": np.arange(4)}, "pair": Pair([n], [n, n])} for n in (1, 2)]
    batch = collate(samples, stack=["meta.box", "pair.label"])
    assert isinstance(batch["x"], Packed) and isinstance(batch["pair"].rows, Packed)
    assert torch.equal(batch["meta"]["box"], torch.arange(4).expand(2, 4))
    assert batch["pair"].label.tolist() == [[1, 1], [2, 2]]
    assert collate([(rows_of(1), torch.ones(2))] * 3, stack=[1])[1].shape == (3, 2)


def test_one_name_may_be_stacked_without_a_list():
    assert collate([{"image": torch.ones(2)}] * 3, stack="image")["image"].shape == (3, 2)
    assert collate([(torch.ones(2), 5)] * 3, stack=0)[0].shape == (3, 2)


def test_gradients_reach_the_samples():
    samples = [rows_of(2).requires_grad_(), rows_of(1).requires_grad_()]
    (collate(samples).data ** 2).sum().backward()
    for sample in samples:
        assert sample.grad is not None and torch.equal(sample.grad, 2 * sample)


@pytest.fixture
def warn_always() -> Iterator[None]:
    """Torch gives some of its warnings once a process, which an earlier test may have had."""
    torch.set_warn_always(True)
    yield
    torch.set_warn_always(False)


def test_arrays_that_may_not_be_written_are_copied_without_a_warning(warn_always):
    array = np.arange(6)
    array.flags.writeable = False
    batches = [
        collate([array[:2], array[2:]]).data,
        collate([array, torch.zeros(2, dtype=torch.int64)]).data,
        collate([{"x": array}], stack=["x"])["x"],
    ]
    for batch in batches:
        batch.zero_()
    assert array.tolist() == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize("view", [np.flip, lambda array: array.astype(">f4")], ids=["flipped", "big-endian"])
def test_arrays_of_any_memory_layout_are_collated(view):
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    rows = torch.from_numpy(view(array).astype(np.float32))
    samples = [view(array), view(array)]
    assert torch.equal(collate(samples).data, torch.cat([rows, rows]))
    assert torch.equal(collate([{"x": each} for each in samples], stack="x")["x"], torch.stack([rows, rows]))
    assert torch.equal(collate([view(array), rows]).data, torch.cat([rows, rows]))
    assert torch.equal(collate([view(np.array(1, np.float32))]), torch.ones(1))


def test_an_array_that_may_be_masked_but_is_not_is_an_array():
    assert collate([np.ma.array([1, 2])]).data.tolist() == [1, 2]


# ---- who is named -------------------------------------------------------------------------------------

x, y = torch.zeros(2, 3), torch.zeros(1, 4)

MASKED = np.ma.array([1, 99], mask=[False, True])
NO_MASKS = "has masked entries, which tensors cannot have; fill or drop them"

ERRORS: list[tuple[Any, dict[str, Any], type[Exception], str]] = [
    ([MASKED[:1], MASKED], {}, ValueError, f"sample 1 {NO_MASKS}"),
    ([{"x": MASKED}], {"stack": "x"}, ValueError, f"field 'x' of sample 0 {NO_MASKS}"),
    ([{"x": np.ma.masked}], {}, ValueError, f"field 'x' of sample 0 {NO_MASKS}"),
    ([], {}, ValueError, "collate needs at least one sample, got none"),
    ([x, x, y], {}, ValueError, "sample 2 has rows of shape (4,), but sample 0 has (3,)"),
    (
        [{"x": x}, {"x": x.double()}],
        {},
        ValueError,
        "field 'x' of sample 1 has dtype torch.float64, but field 'x' of sample 0 has torch.float32",
    ),
    (
        [{"x": x}, {"x": x.to("meta")}],
        {},
        ValueError,
        "field 'x' of sample 1 has device meta, but field 'x' of sample 0 has cpu",
    ),
    (
        [(1, np.zeros(2)), (1, np.zeros(2, int))],
        {},
        ValueError,
        "field '1' of sample 1 has dtype int64, but field '1' of sample 0 has float64",
    ),
    ([[1, 2], [0.5]], {}, ValueError, "sample 1 has dtype torch.float32, but sample 0 has torch.int64"),
    ([1, 0.5], {}, ValueError, "sample 1 has dtype torch.float32, but sample 0 has torch.int64"),
    (
        [{"y": 1}, {"y": "1"}],
        {},
        TypeError,
        "field 'y' of sample 1 is a str, but field 'y' of sample 0 is a number (int)",
    ),
    ([x, x[0, 0]], {}, TypeError, "sample 1 is a number (Tensor), but sample 0 is a sequence (Tensor)"),
    (
        [{"a": {"b": 1}}, {"a": (1,)}],
        {},
        TypeError,
        "field 'a' of sample 1 is a tuple, but field 'a' of sample 0 is a dict",
    ),
    ([{"a": 1, "b": 1}, {"a": 1}], {}, ValueError, "sample 0 has a field 'b', but sample 1 does not"),
    ([{"a": 1}, {"a": 1, "c": 1}], {}, ValueError, "sample 1 has a field 'c', but sample 0 does not"),
    ([(1, 2), (1,)], {}, ValueError, "sample 1 has 1 fields, but sample 0 has 2"),
    (
        [Pair(x, 1), Swapped(1, x)],
        {},
        TypeError,
        "sample 1 is Swapped(label, rows), but sample 0 is Pair(rows, label)",
    ),
    (
        [{"p": Pair(x, 1)}, {"p": (x, 1)}],
        {},
        TypeError,
        "field 'p' of sample 1 is a plain tuple, but field 'p' of sample 0 is Pair(rows, label)",
    ),
    (
        [{"m": {"v": x}}],
        {"stack": ["m"]},
        TypeError,
        "stack names 'm', but field 'm' of sample 0 is a dict, not an array",
    ),
    (
        [{"m": "v"}],
        {"stack": "m"},
        TypeError,
        "stack names 'm', but field 'm' of sample 0 is a str, not an array",
    ),
    (
        [{"m": {"v": x}}, {"m": {"v": x[:1]}}],
        {"stack": ["m.v"]},
        ValueError,
        (
            "field 'm.v' of sample 1 has shape (1, 3), but field 'm.v' of sample 0 has (2, 3); "
            "stacked arrays must have one shape"
        ),
    ),
    ([{"a": 1, "b": 2}], {"stack": ["c"]}, ValueError, "stack names 'c', but the fields are: a, b"),
    ([x], {"stack": ["c"]}, ValueError, "stack names 'c', but the fields are: none"),
    (
        [["a"]],
        {},
        TypeError,
        "sample 0 cannot be a tensor: too many dimensions 'str'; a list must hold numbers",
    ),
    (
        [torch.nested.nested_tensor([x], layout=torch.jagged)],
        {},
        TypeError,
        "sample 0 is a nested tensor; pass its sequences one by one",
    ),
]


@pytest.mark.parametrize(
    ("samples", "options", "kind", "message"), ERRORS, ids=[error[-1] for error in ERRORS]
)
def test_samples_that_are_not_alike_are_named(samples, options, kind, message):
    with pytest.raises(kind) as caught:
        collate(samples, **options)
    assert str(caught.value) == message


# ---- in a loader --------------------------------------------------------------------------------------

SAMPLES = [{"x": rows_of(n % 5, n), "box": torch.ones(2), "y": n, "name": f"sample {n}"} for n in range(11)]


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_come_through_a_loader_with_and_without_workers(workers):
    lengths = [len(sample["x"]) for sample in SAMPLES]
    sampler = LengthBatchSampler(lengths, batch_size=3, policy="bucket")
    together = functools.partial(collate, stack=["box"])
    loader = DataLoader(SAMPLES, batch_sampler=sampler, collate_fn=together, num_workers=workers)  # type: ignore[arg-type]
    for batch, indices in zip(loader, sampler, strict=True):
        assert same(batch["x"], [SAMPLES[i]["x"] for i in indices])
        assert batch["y"].tolist() == indices
        assert batch["name"] == [SAMPLES[i]["name"] for i in indices]
        assert batch["box"].shape == (len(indices), 2)


def test_a_batch_can_be_pinned_field_by_field(monkeypatch):
    # What a DataLoader with pin_memory does, of which a machine without an accelerator does nothing.
    from torch.utils.data._utils.pin_memory import pin_memory

    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda self, *device: self + 1)
    batch = pin_memory({"x": pack([torch.zeros(2), torch.zeros(1)]), "y": torch.zeros(2), "name": ["a", "b"]})
    assert isinstance(batch["x"], Packed) and batch["x"].data.tolist() == [1, 1, 1]
    assert batch["y"].tolist() == [1, 1] and batch["name"] == ["a", "b"]

"""`Packed` as a value: made, viewed, indexed, mapped and calculated with, against plain lists of tensors."""

from __future__ import annotations

import operator
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from padless import LengthsError, Packed, pack

from ..strategies import lengths as some_lengths


def sequences_of(lengths: list[int], *row_shape: int, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    generator = torch.Generator().manual_seed(sum(lengths))
    return [torch.randn(n, *row_shape, generator=generator, dtype=torch.float64).to(dtype) for n in lengths]


def assert_same(packed: Packed, expected: list[Tensor]) -> None:
    assert len(packed) == len(expected)
    assert packed.lengths.tolist() == [len(sequence) for sequence in expected]
    for got, sequence in zip(packed.unpack(), expected, strict=True):
        torch.testing.assert_close(got, sequence, rtol=0, atol=0)


# --- making ---------------------------------------------------------------------------------------


@given(some_lengths(), st.sampled_from([(), (3,), (2, 1)]))
def test_pack_lays_sequences_back_to_back(lengths: list[int], row_shape: tuple[int, ...]) -> None:
    sequences = sequences_of(lengths, *row_shape)
    packed = pack(sequences)
    assert_same(packed, sequences)
    assert packed.data.shape[0] == sum(lengths)
    assert packed.offsets.tolist() == [sum(lengths[:i]) for i in range(len(lengths) + 1)]


def test_pack_of_nothing_has_no_sequences_and_no_rows() -> None:
    packed = pack([])
    assert (len(packed), packed.data.shape, packed.unpack()) == (0, (0,), [])
    assert (packed.lengths.tolist(), packed.offsets.tolist()) == ([], [0])
    assert packed.lengths.dtype == packed.offsets.dtype == torch.int64


@pytest.mark.parametrize("kind", [list, tuple, iter])
def test_pack_takes_any_iterable(kind: Any) -> None:
    assert pack(kind([torch.ones(2), torch.ones(1)])).lengths.tolist() == [2, 1]


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.float16, torch.bfloat16, torch.complex64])
def test_every_dtype_is_kept(dtype: torch.dtype) -> None:
    sequences = [torch.tensor([1, 0], dtype=dtype), torch.tensor([1], dtype=dtype)]
    packed = pack(sequences)
    assert packed.dtype == packed.pad().dtype == dtype
    assert_same(packed, sequences)
    assert_same(packed[[1, 0]], sequences[::-1])
    assert_same(Packed.from_packed_sequence(packed.to_packed_sequence()), sequences)


@given(some_lengths(), st.booleans(), st.integers(0, 2))
def test_pack_of_a_padded_batch_never_reads_the_padding(
    lengths: list[int], batch_first: bool, extra: int
) -> None:
    sequences = sequences_of(lengths, 2)
    grid = torch.full((len(lengths), max(lengths, default=0) + extra, 2), float("nan"), dtype=torch.float64)
    for row, sequence in zip(grid, sequences, strict=True):
        row[: len(sequence)] = sequence
    padded = (grid if batch_first else grid.transpose(0, 1)).requires_grad_()
    packed = pack(padded, lengths, batch_first=batch_first)
    assert_same(packed, sequences)
    (gradient,) = torch.autograd.grad(packed.data.sum(), padded)
    assert torch.equal(gradient, padded.detach().isnan().logical_not().to(torch.float64))


@pytest.mark.parametrize("make", [list, tuple, numpy.array, torch.tensor, lambda x: torch.tensor(x).float()])
def test_lengths_of_every_kind_are_taken(make: Any) -> None:
    assert_same(
        Packed(torch.arange(3), make([2, 0, 1])), [torch.tensor([0, 1]), torch.arange(0), torch.tensor([2])]
    )
    assert pack(torch.zeros(3, 2), make([2, 0, 1])).lengths.tolist() == [2, 0, 1]


def test_data_are_the_callers_memory() -> None:
    data = torch.zeros(3)
    assert Packed(data, [1, 2]).data is data
    assert Packed.from_offsets(data, [0, 1, 3]).data is data


def test_pack_copies_even_one_sequence() -> None:
    sequence = torch.zeros(3)
    pack([sequence]).data.add_(1)
    pack(sequence[None], [3]).data.add_(1)
    assert sequence.tolist() == [0, 0, 0]


@given(some_lengths())
def test_offsets_say_the_same_as_lengths(lengths: list[int]) -> None:
    packed = pack(sequences_of(lengths))
    assert_same(Packed.from_offsets(packed.data, packed.offsets), packed.unpack())


# --- a value --------------------------------------------------------------------------------------


def test_lengths_that_are_handed_out_or_in_can_be_written_without_effect() -> None:
    given_lengths = torch.tensor([1, 2])
    packed = Packed(torch.zeros(3), given_lengths)
    for handed in (given_lengths, packed.lengths, packed.offsets, packed.to_packed_sequence().batch_sizes):
        handed.fill_(7)
    order = packed.to_packed_sequence().sorted_indices
    assert order is not None
    order.fill_(7)
    assert (packed.lengths.tolist(), packed.offsets.tolist()) == ([1, 2], [0, 1, 3])
    assert packed._layout.order.tolist() == [1, 0]
    assert packed.to_packed_sequence().batch_sizes.tolist() == [2, 1]


@pytest.mark.parametrize("name", ["data", "lengths", "_data", "_layout", "anything"])
def test_attributes_cannot_be_set_or_deleted(name: str) -> None:
    packed = Packed(torch.zeros(3), [1, 2])
    message = rf"^a Packed cannot be changed \(\.{name}\): use \.map\(\.\.\.\) or pack\(\.\.\.\) instead$"
    with pytest.raises(AttributeError, match=message):
        setattr(packed, name, torch.zeros(3))
    with pytest.raises(AttributeError, match=message):
        delattr(packed, name)
    assert not hasattr(packed, "__dict__")


def test_equality_and_hash_are_identity() -> None:
    data = torch.zeros(3)
    a, b = Packed(data, [1, 2]), Packed(data, [1, 2])
    assert a == a and a != b
    assert len({a, b, a}) == 2


@pytest.mark.parametrize(
    ("packed", "text"),
    [
        (
            Packed(torch.zeros(45, 2), [4, 6, 8, 5, 4, 3, 7, 8]),
            "Packed(B=8, N=45, T=8, fill=0.70, shape=(45, 2), dtype=torch.float32)",
        ),
        (pack([]), "Packed(B=0, N=0, T=0, fill=1.00, shape=(0,), dtype=torch.float32)"),
        (
            Packed(torch.zeros(3, dtype=torch.int32, device="meta"), [0, 3]),
            "Packed(B=2, N=3, T=3, fill=0.50, shape=(3,), dtype=torch.int32, device='meta')",
        ),
    ],
)
def test_repr_tells_how_full_the_padded_grid_would_be(packed: Packed, text: str) -> None:
    assert repr(packed) == text


# --- indexing -------------------------------------------------------------------------------------


@given(some_lengths(min_batch=1), st.data())
def test_one_index_gives_a_view_of_that_sequence(lengths: list[int], data: st.DataObject) -> None:
    sequences = sequences_of(lengths, 2)
    packed = pack(sequences)
    i = data.draw(st.integers(-len(lengths), len(lengths) - 1))
    for index in (i, numpy.int32(i), torch.tensor(i)):
        assert torch.equal(packed[index], sequences[i])  # pyright: ignore[reportArgumentType, reportCallIssue]
    packed[i].fill_(7.0)
    start = sum(lengths[: i % len(lengths)])
    assert bool((packed.data[start : start + lengths[i]] == 7).all())


@pytest.mark.parametrize("index", [3, -4, 100])
def test_an_index_past_the_end_is_an_index_error(index: int) -> None:
    with pytest.raises(IndexError, match=rf"^index {index} is out of range for 3 sequences$"):
        Packed(torch.zeros(3), [1, 1, 1])[index]


@given(some_lengths(), st.slices(8))
def test_a_slice_is_the_list_slice(lengths: list[int], index: slice) -> None:
    sequences = sequences_of(lengths)
    assert_same(pack(sequences)[index], sequences[index])


def test_a_slice_of_step_1_is_a_view() -> None:
    packed = Packed(torch.arange(6), [3, 1, 2])
    packed[1:].data.fill_(9)
    assert packed.data.tolist() == [0, 1, 2, 9, 9, 9]


@given(some_lengths(min_batch=1), st.data())
def test_many_indices_take_sequences_in_any_order_and_as_often_as_wished(
    lengths: list[int], data: st.DataObject
) -> None:
    sequences = sequences_of(lengths, 2)
    numbers = data.draw(st.lists(st.integers(-len(lengths), len(lengths) - 1), max_size=8))
    for make in (list, numpy.array, lambda x: torch.tensor(x, dtype=torch.int32)):
        assert_same(pack(sequences)[make(numbers)], [sequences[i] for i in numbers])


@given(some_lengths(), st.data())
def test_a_mask_keeps_the_sequences_that_it_marks(lengths: list[int], data: st.DataObject) -> None:
    sequences = sequences_of(lengths)
    mask = data.draw(st.lists(st.booleans(), min_size=len(lengths), max_size=len(lengths)))
    kept = [sequence for sequence, keep in zip(sequences, mask, strict=True) if keep]
    for make in (list, lambda x: numpy.array(x, dtype=bool), lambda x: torch.tensor(x, dtype=torch.bool)):
        assert_same(pack(sequences)[make(mask)], kept)


@pytest.mark.parametrize("index", [torch.tensor([1, 0, 1], dtype=torch.uint8), [True, 2, 0]])
def test_an_index_that_may_be_a_mask_or_numbers_is_refused(index: Any) -> None:
    with pytest.raises(TypeError, match=r"bool or int64|not both"):
        Packed(torch.arange(6), [3, 1, 2])[index]


@pytest.mark.parametrize("index", [[2, 0], [1, 1, 0, 1], [], slice(None, None, -1), slice(1, 3), 1])
def test_gradients_of_indexing_add_up_over_repeats(index: Any) -> None:
    data = torch.randn(6, 2, dtype=torch.float64, requires_grad=True)

    def indexed(data: Tensor) -> Tensor:
        result = Packed(data, [3, 1, 0, 2])[index]
        return result if isinstance(result, Tensor) else result.data

    assert torch.autograd.gradcheck(indexed, data)
    assert torch.autograd.gradgradcheck(indexed, data)


@given(some_lengths())
def test_iteration_gives_every_sequence_once(lengths: list[int]) -> None:
    sequences = sequences_of(lengths)
    packed = pack(sequences)
    assert all(map(torch.equal, packed, sequences))
    assert all(map(torch.equal, reversed(packed), reversed(sequences)))  # pyright: ignore[reportArgumentType]
    assert len(list(packed)) == len(sequences)


# --- map and arithmetic ---------------------------------------------------------------------------


@given(some_lengths())
def test_map_is_the_function_on_each_sequence(lengths: list[int]) -> None:
    sequences = sequences_of(lengths, 3)
    linear = torch.nn.Linear(3, 2, dtype=torch.float64)
    mapped = pack(sequences).map(linear) if sequences else Packed(torch.zeros(0, 3).double(), []).map(linear)
    assert len(mapped) == len(sequences)
    for got, sequence in zip(mapped, sequences, strict=True):
        torch.testing.assert_close(got, linear(sequence), rtol=1e-12, atol=1e-12)


BINARY = [
    operator.add,
    operator.sub,
    operator.mul,
    operator.truediv,
    operator.floordiv,
    operator.mod,
    operator.pow,
]


@pytest.mark.parametrize("function", BINARY)
@pytest.mark.parametrize("number", [3, 0.5, numpy.float32(2.5), numpy.int64(2), torch.tensor(1.5)])
def test_arithmetic_with_a_number_on_either_side_is_torchs(function: Any, number: Any) -> None:
    data = torch.rand(6, 2) + 0.5
    packed = Packed(data, [3, 1, 2])
    for got, expected in (
        (function(packed, number), function(data, number)),
        (function(number, packed), function(torch.as_tensor(number), data)),
    ):
        assert isinstance(got, Packed)
        torch.testing.assert_close(got.data, expected, check_dtype=False)
        assert got.lengths.tolist() == [3, 1, 2]


@pytest.mark.parametrize("number", [Fraction(1, 2), Decimal(1)])
def test_numbers_that_torch_does_not_take_are_refused(number: Any) -> None:
    packed = Packed(torch.ones(6), [3, 1, 2])
    for use in (lambda: packed * number, lambda: number + packed):
        with pytest.raises(TypeError, match="Packed"):
            use()


@pytest.mark.parametrize("function", BINARY)
def test_arithmetic_of_equal_lengths_is_torchs_on_the_rows(function: Any) -> None:
    a, b = torch.rand(6, 2) + 0.5, torch.rand(6, 2) + 0.5
    got = function(Packed(a, [3, 1, 2]), Packed(b, [3, 1, 2]))
    assert torch.equal(got.data, function(a, b))
    assert got.lengths.tolist() == [3, 1, 2]


@pytest.mark.parametrize("function", [operator.neg, operator.pos, operator.abs])
def test_unary_arithmetic_is_torchs(function: Any) -> None:
    data = torch.randn(6)
    assert torch.equal(function(Packed(data, [3, 1, 2])).data, function(data))


def test_one_number_a_row_never_becomes_one_a_feature() -> None:
    # N equals the width here: torch alone would multiply columns.
    rows, weights = torch.ones(2, 2), torch.tensor([1.0, 10.0])
    for got in (
        Packed(rows, [1, 1]) * Packed(weights, [1, 1]),
        Packed(weights, [1, 1]) * Packed(rows, [1, 1]),
    ):
        assert got.data.tolist() == [[1, 1], [10, 10]]


def test_gradients_flow_through_arithmetic_and_map() -> None:
    a = torch.randn(6, 2, dtype=torch.float64, requires_grad=True)
    b = torch.randn(6, dtype=torch.float64, requires_grad=True)

    def function(a: Tensor, b: Tensor) -> Tensor:
        return ((Packed(a, [4, 2]) * Packed(b, [4, 2]) + 1) / 2).map(torch.tanh).data

    assert torch.autograd.gradcheck(function, (a, b))
    assert torch.autograd.gradgradcheck(function, (a, b))


def test_augmented_assignment_makes_another() -> None:
    packed = before = Packed(torch.zeros(3), [1, 2])
    packed += 1
    assert (before.data.tolist(), packed.data.tolist()) == ([0, 0, 0], [1, 1, 1])


@given(some_lengths(min_batch=1), st.data())
def test_the_first_sequence_whose_lengths_differ_is_named(lengths: list[int], data: st.DataObject) -> None:
    i = data.draw(st.integers(0, len(lengths) - 1))
    longer = [n + (k >= i) for k, n in enumerate(lengths)]
    message = rf"^lengths differ: sequence {i} has {lengths[i]} rows on the left, {longer[i]} on the right$"
    with pytest.raises(LengthsError, match=message):
        operator.add(pack(sequences_of(lengths)), pack(sequences_of(longer)))


# --- moving ---------------------------------------------------------------------------------------


def test_to_takes_what_torch_takes_and_keeps_the_lengths() -> None:
    packed = Packed(torch.arange(3), [1, 2])
    for moved in (
        packed.to(torch.float32),
        packed.to("cpu", torch.float32),
        packed.to(device="cpu", dtype=torch.float32, non_blocking=True),
        packed.to(torch.zeros(1)),
    ):
        assert moved.dtype == torch.float32
        assert_same(moved, [torch.tensor([0.0]), torch.tensor([1.0, 2.0])])


def test_to_and_cpu_return_the_batch_itself_where_nothing_changes() -> None:
    packed = Packed(torch.arange(3), [1, 2])
    assert packed.to("cpu") is packed and packed.cpu() is packed
    copy = packed.to("cpu", copy=True)
    assert copy.data.data_ptr() != packed.data.data_ptr()


def test_lengths_follow_the_data_to_their_device() -> None:
    moved = Packed(torch.arange(3), [1, 2]).to("meta")
    assert moved.device.type == moved.lengths.device.type == moved.offsets.device.type == "meta"
    assert moved.pad().shape == moved.mask().shape == (2, 2)
    assert moved[1].shape == (2,) and moved[[1, 1]].data.shape == (4,)


def test_detach_cuts_the_graph_and_shares_the_memory() -> None:
    packed = Packed(torch.zeros(3, requires_grad=True), [1, 2])
    detached = packed.detach()
    assert not detached.data.requires_grad
    assert detached.data.data_ptr() == packed.data.data_ptr()


def test_pin_memory_pins_the_data(monkeypatch: pytest.MonkeyPatch) -> None:
    # A machine without an accelerator cannot pin; what counts is that the data's own method is asked.
    pinned = torch.arange(3) + 10
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda self: pinned)
    packed = Packed(torch.arange(3), [1, 2]).pin_memory()
    assert packed.data is pinned and packed.lengths.tolist() == [1, 2]
    assert not packed.is_pinned()


@pytest.mark.parametrize("name", ["lt", "le", "gt", "ge", "and_", "or_", "xor"])
def test_comparisons_and_logic_are_those_of_the_rows(name):
    function = getattr(operator, name)
    a, b = Packed(torch.tensor([1, 5, 2]), [2, 1]), Packed(torch.tensor([4, 5, 1]), [2, 1])
    for left, right in ((a, b), (a, 2), (2, a), (torch.tensor(2), a), (a, torch.tensor(2))):
        got = function(left, right)
        rows = [v.data if isinstance(v, Packed) else v for v in (left, right)]
        assert torch.equal(got.data, function(*rows))
        assert got.lengths.tolist() == [2, 1]
    with pytest.raises(LengthsError, match="lengths differ"):
        function(a, Packed(torch.tensor([1, 2, 3]), [1, 2]))
    assert torch.equal((~(a > 2)).data, a.data <= 2)
    assert (a == b) is False
    assert a == a

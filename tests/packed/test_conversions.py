"""`Packed` to and from padded grids, PackedSequence, nested tensors and Arrow: values and gradients."""

from __future__ import annotations

import sys
from typing import Any

import pyarrow
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.utils import rnn as torch_rnn

from padless import LayoutError, Packed, pack
from padless.layout.rows import move_rows
from padless.packed import packing

from ..strategies import lengths as some_lengths


def sequences_of(lengths: list[int], *row_shape: int) -> list[Tensor]:
    return [torch.randn(n, *row_shape, dtype=torch.float64) for n in lengths]


def assert_same(packed: Packed, expected: list[Tensor]) -> None:
    assert packed.lengths.tolist() == [len(sequence) for sequence in expected]
    for got, sequence in zip(packed.unpack(), expected, strict=True):
        torch.testing.assert_close(got, sequence, rtol=0, atol=0)


# --- padded grids ---------------------------------------------------------------------------------


@given(some_lengths(), st.booleans(), st.sampled_from(["left", "right"]), st.integers(0, 3), st.booleans())
def test_pad_puts_every_row_into_its_cell_and_the_value_into_the_others(
    lengths: list[int], batch_first: bool, side: Any, extra: int, exact: bool
) -> None:
    sequences = sequences_of(lengths, 2)
    packed = pack(sequences) if sequences else Packed(torch.zeros(0, 2).double(), [])
    steps = max(lengths, default=0) + (0 if exact else extra)
    grid = torch.full((len(lengths), steps, 2), -7.0, dtype=torch.float64)
    mask = torch.zeros(len(lengths), steps, dtype=torch.bool)
    for b, sequence in enumerate(sequences):
        start = steps - len(sequence) if side == "left" else 0
        grid[b, start : start + len(sequence)] = sequence
        mask[b, start : start + len(sequence)] = True
    if not batch_first:
        grid, mask = grid.transpose(0, 1), mask.T
    total_length = None if exact else steps
    padded = packed.pad(-7.0, total_length=total_length, side=side, batch_first=batch_first)
    assert torch.equal(padded, grid)
    assert torch.equal(packed.mask(total_length=total_length, side=side, batch_first=batch_first), mask)


@given(some_lengths(min_length=1, min_batch=1))
def test_pad_is_bit_equal_to_torchs(lengths: list[int]) -> None:
    sequences = sequences_of(lengths, 3)
    assert torch.equal(pack(sequences).pad(1.5), torch_rnn.pad_sequence(sequences, True, 1.5))


@given(some_lengths())
def test_pack_undoes_pad(lengths: list[int]) -> None:
    packed = pack(sequences_of(lengths))
    assert_same(pack(packed.pad(float("nan")), lengths), packed.unpack())


def test_pad_copies() -> None:
    packed = Packed(torch.zeros(3), [3])
    packed.pad().add_(1)
    assert packed.data.tolist() == [0, 0, 0]


def test_unpacked_sequences_are_views() -> None:
    packed = Packed(torch.zeros(3), [1, 2])
    packed.unpack()[1].add_(1)
    assert packed.data.tolist() == [0, 1, 1]


def test_gradients_of_pad_and_unpack() -> None:
    data = torch.randn(6, 2, dtype=torch.float64, requires_grad=True)
    for function in (
        lambda data: Packed(data, [3, 0, 1, 2]).pad(side="left"),
        lambda data: Packed(data, [3, 0, 1, 2]).pad(2.0, total_length=5, batch_first=False),
        lambda data: tuple(Packed(data, [3, 1, 2]).unpack()),
        lambda data: pack(Packed(data, [3, 1, 2]).unpack()).data,
    ):
        assert torch.autograd.gradcheck(function, data)
        assert torch.autograd.gradgradcheck(function, data)


def test_gradients_of_pack_from_a_padded_batch() -> None:
    padded = torch.randn(3, 4, 2, dtype=torch.float64, requires_grad=True)
    for function in (
        lambda padded: pack(padded, [4, 0, 2]).data,
        lambda padded: pack(padded, [1, 3, 2, 0], batch_first=False).data,
    ):
        assert torch.autograd.gradcheck(function, padded)
        assert torch.autograd.gradgradcheck(function, padded)


# --- PackedSequence -------------------------------------------------------------------------------


@given(some_lengths(min_length=1, min_batch=1))
def test_to_packed_sequence_is_bit_equal_to_torchs_packing(lengths: list[int]) -> None:
    sequences = sequences_of(lengths, 2)
    got, expected = (
        pack(sequences).to_packed_sequence(),
        torch_rnn.pack_sequence(sequences, enforce_sorted=False),
    )
    for a, b in zip(got, expected, strict=True):
        assert a is not None and b is not None and torch.equal(a, b) and a.dtype == b.dtype


@given(some_lengths())
def test_a_packed_sequence_comes_back_with_every_sequence_of_length_0(lengths: list[int]) -> None:
    sequences = sequences_of(lengths, 2) or []
    packed = pack(sequences)
    assert_same(Packed.from_packed_sequence(packed.to_packed_sequence()), sequences)


@given(some_lengths(min_length=1, min_batch=1), st.booleans(), st.randoms(use_true_random=False))
def test_any_order_of_ties_is_read_and_kept(lengths: list[int], is_sorted: bool, random: Any) -> None:
    order = sorted(range(len(lengths)), key=lambda i: (-lengths[i], random.random()))
    sequences = sequences_of(lengths, 2)
    by_slot = torch_rnn.pack_sequence([sequences[i] for i in order])
    sequence = torch_rnn.PackedSequence(
        by_slot.data, by_slot.batch_sizes, None if is_sorted else torch.tensor(order)
    )
    packed = Packed.from_packed_sequence(sequence)
    assert_same(packed, [sequences[i] for i in order] if is_sorted else sequences)
    again = packed.to_packed_sequence()
    assert torch.equal(again.data, sequence.data)
    assert again.sorted_indices is not None
    assert again.sorted_indices.tolist() == (list(range(len(order))) if is_sorted else order)


def test_gradients_of_packed_sequences() -> None:
    data = torch.randn(6, 2, dtype=torch.float64, requires_grad=True)
    for function in (
        lambda data: Packed(data, [2, 0, 4]).to_packed_sequence().data,
        lambda data: (
            Packed.from_packed_sequence(
                torch_rnn.PackedSequence(data, torch.tensor([3, 2, 1]), torch.tensor([1, 0, 2]))
            ).data
        ),
    ):
        assert torch.autograd.gradcheck(function, data)
        assert torch.autograd.gradgradcheck(function, data)


# --- nested tensors -------------------------------------------------------------------------------


def nested_of(sequences: list[Tensor], layout: torch.layout = torch.jagged) -> Tensor:
    return torch.nested.nested_tensor(sequences, layout=layout)


@given(some_lengths(min_batch=1))
def test_nested_tensors_share_memory_both_ways(lengths: list[int]) -> None:
    sequences = sequences_of(lengths, 2)
    packed = pack(sequences)
    nested = packed.to_nested()
    for got, sequence in zip(nested.unbind(), sequences, strict=True):
        assert torch.equal(got, sequence)
    again = Packed.from_nested(nested)
    assert_same(again, sequences)
    assert again.data.data_ptr() == packed.data.data_ptr()


def test_an_empty_batch_passes_through_a_jagged_tensor() -> None:
    nested = Packed(torch.zeros(0, 2), []).to_nested()
    assert nested.shape[0] == 0
    assert len(Packed.from_nested(nested)) == 0


def test_nested_tensors_of_one_layout_can_be_added() -> None:
    packed = pack(sequences_of([3, 1]))
    assert_same(Packed.from_nested(packed.to_nested() + (2 * packed).to_nested()), (3 * packed).unpack())
    nested = nested_of(sequences_of([3, 1]))
    doubled = Packed.from_nested(nested).map(lambda rows: 2 * rows).to_nested()
    assert_same(Packed.from_nested(nested + doubled), [3 * sequence for sequence in nested.unbind()])


def test_a_jagged_tensor_with_holes_is_packed_without_them() -> None:
    values = torch.arange(10.0, requires_grad=True)
    nested = torch.nested.nested_tensor_from_jagged(
        values, torch.tensor([0, 4, 6, 10]), torch.tensor([2, 0, 3])
    )
    packed = Packed.from_nested(nested)
    assert_same(packed, [torch.tensor([0.0, 1.0]), torch.tensor([]), torch.tensor([6.0, 7.0, 8.0])])
    packed.data.sum().backward()
    assert values.grad is not None and values.grad.tolist() == [1, 1, 0, 0, 0, 0, 1, 1, 1, 0]


@given(some_lengths(min_batch=1))
def test_a_strided_nested_tensor_is_packed(lengths: list[int]) -> None:
    sequences = sequences_of(lengths, 2)
    assert_same(Packed.from_nested(nested_of(sequences, torch.strided)), sequences)


def test_an_empty_strided_nested_tensor_is_an_empty_batch() -> None:
    packed = Packed.from_nested(nested_of([], torch.strided))
    assert (len(packed), packed.data.shape) == (0, (0,))


def test_gradients_flow_through_nested_tensors() -> None:
    data = torch.randn(4, 2, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(4, 2, dtype=torch.float64)
    nested = Packed(data, [1, 3]).to_nested()
    packed = Packed.from_nested(nested * 2)
    (gradient,) = torch.autograd.grad((packed.data * weight).sum(), data)
    torch.testing.assert_close(gradient, 2 * weight, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("nested", "error", "message"),
    [
        (lambda: torch.zeros(3), TypeError, "from_nested takes a nested tensor, got an ordinary tensor"),
        (lambda: [torch.zeros(3)], TypeError, "from_nested takes a nested tensor, got list"),
        (
            lambda: nested_of([torch.zeros(2, 3), torch.zeros(1, 3)]).transpose(1, 2),
            ValueError,
            "from_nested needs the ragged dimension to be 1, (B, len, *), got 2: transpose it first",
        ),
        (
            lambda: nested_of([torch.zeros(2, 3), torch.zeros(2, 4)], torch.strided),
            ValueError,
            "from_nested: sequence 1 has shape (2, 4), sequence 0 has (2, 3): only dimension 0 may differ",
        ),
        (
            lambda: torch.nested.nested_tensor_from_jagged(torch.zeros(5), torch.tensor([1, 3, 5])),
            LayoutError,
            "offsets[0] = 1, but the first sequence starts at 0",
        ),
    ],
)
def test_nested_tensors_that_cannot_be_packed_are_refused(nested: Any, error: Any, message: str) -> None:
    with pytest.raises(error) as caught:
        Packed.from_nested(nested())
    assert str(caught.value) == message


# --- Arrow ----------------------------------------------------------------------------------------


@given(some_lengths(), st.sampled_from([(), (2,), (3, 2)]))
def test_arrow_shares_memory_both_ways(lengths: list[int], row_shape: tuple[int, ...]) -> None:
    packed = Packed(torch.randn(sum(lengths), *row_shape), lengths)
    array = packed.to_arrow()
    assert array.to_pylist() == [sequence.tolist() for sequence in packed.unpack()]
    again = Packed.from_arrow(array)
    assert_same(again, packed.unpack())
    if packed.data.numel():
        assert again.data.data_ptr() == packed.data.data_ptr()


@pytest.mark.parametrize(
    "dtype",
    [
        torch.uint8,
        torch.int8,
        torch.int16,
        torch.int32,
        torch.int64,
        torch.float16,
        torch.float64,
        torch.bool,
    ],
)
def test_arrow_keeps_every_dtype_that_it_has(dtype: torch.dtype) -> None:
    packed = Packed(torch.tensor([1, 0, 1]).to(dtype), [2, 1])
    again = Packed.from_arrow(packed.to_arrow())
    assert again.dtype == dtype
    assert_same(again, packed.unpack())


LISTS = [[1, 2], [], [3], [4, 5, 6]]


@pytest.mark.parametrize(
    ("array", "expected"),
    [
        (pyarrow.array(LISTS), LISTS),
        (pyarrow.array(LISTS, pyarrow.large_list(pyarrow.int64())), LISTS),
        (pyarrow.array(LISTS)[1:3], LISTS[1:3]),
        (pyarrow.array(LISTS)[4:], []),
        (pyarrow.array([], pyarrow.list_(pyarrow.int64())), []),
        (pyarrow.chunked_array([LISTS[:1], LISTS[1:]]), LISTS),
        (pyarrow.chunked_array([], pyarrow.list_(pyarrow.int64())), []),
        (pyarrow.array([[1, 2], [3, 4]], pyarrow.list_(pyarrow.int64(), 2)), [[1, 2], [3, 4]]),
        (pyarrow.array([[1, 2], [3, 4], [5, 6]], pyarrow.list_(pyarrow.int64(), 2))[1:], [[3, 4], [5, 6]]),
        (
            pyarrow.array([[[1, 2]], [[3, 4], [5, 6]]], pyarrow.list_(pyarrow.list_(pyarrow.int64(), 2)))[1:],
            [[[3, 4], [5, 6]]],
        ),
    ],
)
def test_arrow_lists_of_every_kind_are_read(array: Any, expected: Any) -> None:
    packed = Packed.from_arrow(array)
    assert [sequence.tolist() for sequence in packed] == expected
    assert packed.dtype == torch.int64


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: Packed.from_arrow([[1]]),
            TypeError,
            "from_arrow takes a list array, one list per sequence, got list",
        ),
        (
            lambda: Packed.from_arrow(pyarrow.array([1, 2])),
            TypeError,
            "from_arrow takes a list array, one list per sequence, got int64",
        ),
        (
            lambda: Packed.from_arrow(pyarrow.array([["a"]])),
            TypeError,
            "from_arrow: torch has no dtype for values of type string",
        ),
        (
            lambda: Packed.from_arrow(pyarrow.array([[1], None])),
            ValueError,
            "from_arrow: sequence 1 is null; an empty list is a sequence of length 0",
        ),
        (
            lambda: Packed.from_arrow(pyarrow.array([[1, 2], [None]])),
            ValueError,
            "from_arrow: value 2 is null, which a tensor cannot hold",
        ),
        (
            lambda: Packed(torch.zeros(2, requires_grad=True), [2]).to_arrow(),
            RuntimeError,
            "to_arrow: the data require grad, which Arrow cannot keep; use .detach()",
        ),
        (
            lambda: Packed(torch.zeros(2, device="meta"), [2]).to_arrow(),
            RuntimeError,
            'to_arrow: the data are on meta; use .to("cpu")',
        ),
        (
            lambda: Packed(torch.zeros(2, dtype=torch.bfloat16), [2]).to_arrow(),
            TypeError,
            "to_arrow: Arrow has no type for torch.bfloat16",
        ),
        (
            lambda: Packed(torch.zeros(2, dtype=torch.complex64), [2]).to_arrow(),
            TypeError,
            "to_arrow: Arrow has no type for torch.complex64",
        ),
        (
            lambda: Packed(torch.zeros(2, 0), [2]).to_arrow(),
            ValueError,
            "to_arrow: rows of shape (0,) hold no values",
        ),
    ],
)
def test_what_arrow_or_a_tensor_cannot_hold_is_refused(call: Any, error: Any, message: str) -> None:
    with pytest.raises(error) as caught:
        call()
    assert str(caught.value) == message


def test_without_pyarrow_the_error_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    for call, name in (
        (lambda: Packed.from_arrow(None), "from_arrow"),
        (Packed(torch.zeros(1), [1]).to_arrow, "to_arrow"),
    ):
        with pytest.raises(ImportError, match=rf"^{name} needs pyarrow: pip install pyarrow$"):
            call()


@pytest.mark.parametrize("batch_first", [False, True])
def test_a_transposed_view_is_packed_without_a_copy_of_its_padding(batch_first, monkeypatch):
    seen = []

    def note(data, rows, **options):
        seen.append(data)
        return move_rows(data, rows, **options)

    monkeypatch.setattr(packing, "move_rows", note)
    grid = torch.randn(5, 3, 2)
    lengths = [2, 0, 5] if batch_first else [2, 0, 3, 1, 3]
    view = grid.transpose(0, 1)
    got = pack(view, lengths, batch_first=batch_first)
    assert seen[0].data_ptr() == grid.data_ptr()
    sequences = view if batch_first else view.transpose(0, 1)
    assert torch.equal(got.data, torch.cat([s[:n] for s, n in zip(sequences, lengths, strict=True)]))

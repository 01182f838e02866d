"""Every wrong call of `Packed` and `pack`, and what it is told."""

# pyright: reportArgumentType=false, reportCallIssue=false, reportOperatorIssue=false, reportReturnType=false

from __future__ import annotations

from typing import Any

import numpy
import pytest
import torch

import padless
from padless import LayoutError, LengthsError, Packed, pack


def packed() -> Packed:
    return Packed(torch.arange(6), [3, 1, 2])


TENSOR_OPERAND = (
    "arithmetic of a Packed needs a Packed of equal lengths or a number, "
    "got a tensor of shape {}: use .map(lambda rows: ...)"
)
TOTAL_LENGTH = (
    "Expected total_length to be at least the length of the longest sequence in input, "
    "but got total_length=2 and max sequence length being 3"
)

NO_INDEX = (
    "the index of a Packed must be a number, a slice, a list, or an array of numbers or booleans, got {}"
)

MAKING = [
    (lambda: Packed([1, 2], [2]), TypeError, "data must be a tensor (N, *), got list"),
    (lambda: Packed(torch.tensor(1), [1]), ValueError, "data must be a tensor (N, *), got a scalar"),
    (
        lambda: Packed(packed().to_nested(), [3]),
        ValueError,
        "data must be a tensor (N, *), got a nested tensor",
    ),
    (lambda: Packed(torch.zeros(5), [3, 1]), LengthsError, "lengths sum to 4, but the data have 5 rows"),
    (lambda: Packed(torch.zeros(5), [6, -1]), LengthsError, "lengths[1] = -1 is negative"),
    (
        lambda: Packed.from_offsets(numpy.zeros(2), [0, 2]),
        TypeError,
        "data must be a tensor (N, *), got ndarray",
    ),
    (
        lambda: Packed.from_offsets(torch.zeros(5), []),
        LayoutError,
        "offsets must have B+1 entries, at least one, got none",
    ),
    (
        lambda: Packed.from_offsets(torch.zeros(5), [1, 5]),
        LayoutError,
        "offsets[0] = 1, but the first sequence starts at 0",
    ),
    (
        lambda: Packed.from_offsets(torch.zeros(5), [0, 4, 3, 5]),
        LayoutError,
        "offsets[2] = 3 is smaller than offsets[1] = 4",
    ),
    (
        lambda: Packed.from_offsets(torch.zeros(5), [0, 4]),
        LayoutError,
        "offsets end at 4, but the data have 5 rows",
    ),
    (
        lambda: Packed.from_offsets(torch.zeros(5), [0, 0.5]),
        LayoutError,
        "offsets[1] = 0.5 is not a whole number",
    ),
    (
        lambda: Packed.from_packed_sequence(torch.zeros(3)),
        TypeError,
        "from_packed_sequence takes a PackedSequence, got Tensor",
    ),
    (
        lambda: Packed.from_packed_sequence(
            torch.nn.utils.rnn.PackedSequence(torch.zeros(3), torch.tensor([1, 2]))
        ),
        LayoutError,
        "batch_sizes[1] = 2 is larger than batch_sizes[0] = 1: batch sizes must be non-increasing",
    ),
    (lambda: pack(3), TypeError, "pack takes tensors (len, *), got int"),
    (lambda: pack({"a": torch.zeros(1)}), TypeError, "pack takes tensors (len, *), got dict"),
    (
        lambda: pack(packed().to_packed_sequence()),
        TypeError,
        "pack takes tensors (len, *), got PackedSequence: use Packed.from_packed_sequence",
    ),
    (
        lambda: pack(packed().to_nested()),
        TypeError,
        "pack takes a padded tensor, got a nested one: use Packed.from_nested",
    ),
    (lambda: pack("ab"), TypeError, "pack takes tensors (len, *), got str"),
    (
        lambda: pack([torch.zeros(1), numpy.zeros(1)]),
        TypeError,
        "sequences[1] must be a tensor (len, *), got ndarray: use torch.as_tensor",
    ),
    (
        lambda: pack([packed(), packed()]),
        TypeError,
        "sequences[0] must be a tensor (len, *), got Packed: pack([*a, *b]) joins batches",
    ),
    (
        lambda: pack([[1, 2]]),
        TypeError,
        "sequences[0] must be a tensor (len, *), got list: use torch.as_tensor",
    ),
    (
        lambda: pack([torch.zeros(1), torch.tensor(1.0)]),
        ValueError,
        "sequences[1] must be a tensor (len, *), got a scalar",
    ),
    (
        lambda: pack([packed().to_nested()]),
        ValueError,
        "sequences[0] must be a tensor (len, *), got a nested tensor",
    ),
    (
        lambda: pack([torch.zeros(1, 2), torch.zeros(5, 2), torch.zeros(1, 3)]),
        ValueError,
        "sequences[2] has rows of shape (3,), but sequences[0] has (2,)",
    ),
    (
        lambda: pack([torch.zeros(1), torch.zeros(2).double()]),
        ValueError,
        "sequences[1] has dtype torch.float64, but sequences[0] has torch.float32",
    ),
    (
        lambda: pack([torch.zeros(1), torch.zeros(2, device="meta")]),
        ValueError,
        "sequences[1] has device meta, but sequences[0] has cpu",
    ),
    (
        lambda: pack([torch.zeros(1)], [1]),
        TypeError,
        "lengths are only for a padded tensor, got list and lengths",
    ),
    (
        lambda: pack(torch.zeros(2, 3)),
        TypeError,
        "pack(padded) needs lengths; pack(list(tensor)) packs whole rows",
    ),
    (
        lambda: pack(torch.zeros(3), [3]),
        ValueError,
        "a padded tensor must be (B, T, *) or (T, B, *), got shape (3,)",
    ),
    (lambda: pack(torch.zeros(2, 3), [3]), LengthsError, "lengths has 1 entries for a batch of 2"),
    (
        lambda: pack(torch.zeros(2, 3), [3, 4]),
        LengthsError,
        "lengths[1] = 4 is longer than the padded input (T = 3)",
    ),
    (
        lambda: pack(torch.zeros(3, 2), [1, 4], batch_first=False),
        LengthsError,
        "lengths[1] = 4 is longer than the padded input (T = 3)",
    ),
]

USING = [
    (lambda: packed()[[0, 3]], IndexError, "index[1] = 3 is out of range for 3 sequences"),
    (lambda: packed()[torch.tensor([-4])], IndexError, "index[0] = -4 is out of range for 3 sequences"),
    (lambda: packed()[[True, False]], IndexError, "a mask must have one boolean per sequence, 3, got 2"),
    (
        lambda: packed()[torch.zeros(2, 2, dtype=torch.int64)],
        IndexError,
        "an index must be one-dimensional, got shape (2, 2)",
    ),
    (
        lambda: packed()[torch.tensor([0.0])],
        TypeError,
        "an index must hold whole numbers or booleans, got torch.float32",
    ),
    *(
        (
            lambda index=index: packed()[index],
            TypeError,
            NO_INDEX.format(kind),
        )
        for index, kind in (
            (1.5, "float"),
            ((0, 1), "tuple"),
            ("a", "str"),
            (None, "NoneType"),
            (..., "ellipsis"),
        )
    ),
    (lambda: pack([])[0], IndexError, "index 0 is out of range for 0 sequences"),
    (
        lambda: packed().map(lambda rows: None),
        TypeError,
        "map: fn must return a tensor (N, *), got NoneType",
    ),
    (
        lambda: packed().map(lambda rows: rows[:4]),
        LengthsError,
        "map: fn must keep the number of rows, N = 6, got shape (4,)",
    ),
    (
        lambda: packed().map(torch.sum),
        LengthsError,
        "map: fn must keep the number of rows, N = 6, got shape ()",
    ),
    (
        lambda: packed() + torch.zeros(6),
        TypeError,
        TENSOR_OPERAND.format("(6,)"),
    ),
    (
        lambda: torch.zeros(1) * packed(),
        TypeError,
        TENSOR_OPERAND.format("(1,)"),
    ),
    (lambda: packed() + "a", TypeError, "unsupported operand type(s) for +: 'Packed' and 'str'"),
    (lambda: packed() @ packed(), TypeError, "unsupported operand type(s) for @: 'Packed' and 'Packed'"),
    (
        lambda: packed() + packed()[:2],
        LengthsError,
        "lengths differ: 3 sequences on the left, 2 on the right",
    ),
    (
        lambda: packed() + packed()[[0, 2, 1]],
        LengthsError,
        "lengths differ: sequence 1 has 1 rows on the left, 2 on the right",
    ),
    (
        lambda: packed().pad(total_length=2),
        ValueError,
        TOTAL_LENGTH,
    ),
    (lambda: packed().pad(side="middle"), ValueError, "side must be 'left' or 'right', got 'middle'"),
    (lambda: packed().mask(side="Left"), ValueError, "side must be 'left' or 'right', got 'Left'"),
]


@pytest.mark.parametrize(("call", "error", "message"), [*MAKING, *USING])
def test_a_wrong_call_is_reported_what_is_wrong_with_it(
    call: Any, error: type[Exception], message: str
) -> None:
    with pytest.raises(error) as caught:
        call()
    assert str(caught.value) == message
    assert type(caught.value) is error


def test_total_length_is_refused_in_torchs_own_words() -> None:
    sequence = packed().to_packed_sequence()
    with pytest.raises(ValueError) as theirs:
        torch.nn.utils.rnn.pad_packed_sequence(sequence, total_length=2)
    with pytest.raises(ValueError) as ours:
        packed().pad(total_length=2)
    assert str(ours.value) == str(theirs.value)


@pytest.mark.parametrize(
    ("lengths", "text"),
    [
        ([4, 3.00000001, 1], r"lengths\[1\] = 3.00000001 is not a whole number"),
        ([4, True, 1], r"lengths\[1\] = True is not a whole number"),
        ([4, "x", 1], r"lengths\[1\] must be a whole number, got str"),
        ([4, None, 1], r"lengths\[1\] must be a whole number, got NoneType"),
        (numpy.array([4, None, 1], object), r"lengths\[1\] must be a whole number, got NoneType"),
        ([1, 2**70, 1], r"lengths\[1\] = 1180591620717411303424 is too large"),
        ([[1, 2, 3]], r"lengths\[0\] must be a whole number, got list"),
    ],
)
def test_the_first_wrong_length_of_a_list_is_named(lengths: Any, text: str) -> None:
    with pytest.raises(LengthsError, match=text):
        pack(torch.zeros(3, 4), lengths)


@pytest.mark.parametrize(
    "lengths", [[2**24 + 1, 3.0], [float(2**24 + 1), 3], (numpy.float64(2**24 + 1), numpy.int8(3))]
)
def test_lengths_of_a_list_are_not_rounded(lengths: Any) -> None:
    data = torch.zeros(1, dtype=torch.uint8).expand(2**24 + 4)
    assert Packed(data, lengths).lengths.tolist() == [2**24 + 1, 3]


def test_a_masked_length_is_refused() -> None:
    with pytest.raises(LengthsError, match=r"lengths\[1\] must be a whole number"):
        Packed(torch.zeros(4), numpy.ma.array([1, 2, 1], mask=[False, True, False]))


def test_lengths_of_another_byte_order_are_numbers_too() -> None:
    assert pack(torch.zeros(3, 4), numpy.array([4, 3, 1], ">i4")).lengths.tolist() == [4, 3, 1]


@pytest.mark.parametrize(
    ("offsets", "lengths", "text"),
    [
        ([0, 2, 5], [2, 9], "sequence 1 is rows 2 to 11, but the values have 5"),
        ([0, 1, 5], [3, 2], "sequences 0 and 1 share rows"),
    ],
)
def test_forged_holes_of_a_nested_tensor_are_refused(
    offsets: list[int], lengths: list[int], text: str
) -> None:
    nested = torch.nested.nested_tensor_from_jagged(
        torch.zeros(5, 2), torch.tensor(offsets), lengths=torch.tensor(lengths)
    )
    with pytest.raises(LayoutError, match=text):
        Packed.from_nested(nested)


@pytest.mark.parametrize(
    ("dtype", "value"),
    [(torch.uint8, -1), (torch.uint8, 256), (torch.float16, 70000.0), (torch.int64, 2**63)],
)
def test_a_padding_value_that_the_dtype_cannot_hold_is_refused(dtype: torch.dtype, value: float) -> None:
    batch = Packed(torch.ones(3, dtype=dtype), [2, 1])
    with pytest.raises(RuntimeError, match=f"pad: value = {value}"):
        batch.pad(value)
    assert batch.pad(0).shape == (2, 2)


@pytest.mark.parametrize("total_length", [5.0, 5.5, "5"])
def test_a_total_length_that_is_no_whole_number_is_refused(total_length: Any) -> None:
    for use in (packed().pad, packed().mask):
        with pytest.raises(TypeError, match="total_length must be a whole number"):
            use(total_length=total_length)


@pytest.mark.parametrize("index", [True, numpy.True_, torch.tensor(False)])
def test_a_boolean_is_no_number_of_a_sequence(index: Any) -> None:
    with pytest.raises(TypeError, match="the index of a Packed must be a number"):
        packed()[index]


@pytest.mark.parametrize("batch_first", ["no", 0, None])
def test_an_order_of_dimensions_that_is_no_bool_is_refused(batch_first: Any) -> None:
    grid = torch.zeros(2, 3)
    for use in (packed().pad, packed().mask, lambda batch_first: pack(grid, [3, 1], batch_first)):
        with pytest.raises(TypeError, match="batch_first must be bool"):
            use(batch_first=batch_first)


def test_complex_rows_are_padded_with_a_complex_number() -> None:
    padded = Packed(torch.ones(3, dtype=torch.complex64), [2, 1]).pad(2j)  # type: ignore[arg-type]
    assert padded.tolist() == [[1, 1], [1, 2j]]


@pytest.mark.parametrize("call", [torch.relu, torch.nn.Linear(1, 1), lambda batch: torch.cat([batch, batch])])
def test_functions_of_tensors_say_how_to_reach_the_rows(call):
    with pytest.raises(TypeError, match=r"takes tensors, not a Packed: apply it to the rows, packed\.map"):
        call(padless.pack(torch.ones(2, 3, 1), [3, 1]))


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("sum", "; the rows are in .data, and padless.ops has operations on each sequence"),
        ("batch_sizes", "; .to_packed_sequence() returns a PackedSequence, and .pad() a padded batch"),
        ("rows", ""),
    ],
)
def test_attributes_of_tensors_say_where_to_find_them(name, hint):
    batch = padless.pack(torch.ones(2, 3, 1), [3, 1])
    assert not hasattr(batch, name)
    with pytest.raises(AttributeError) as caught:
        getattr(batch, name)
    assert str(caught.value) == f"'Packed' object has no attribute {name!r}{hint}"

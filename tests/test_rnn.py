"""The twins of torch.nn.utils.rnn: torch's bits, torch's gradients, torch's errors in clearer words."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.utils import rnn as theirs

import padless
from padless import rnn as ours
from padless.rnn import PackedSequence

from .strategies import lengths as ragged_lengths

RAGGED = [[4], [3, 1, 6, 6, 2], [1, 1, 1], [5, 5, 5], [1, 40, 2], [2, 9, 9, 1, 9]]
DTYPES = [torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.complex64]
DTYPES += [torch.int64, torch.uint8, torch.bool]
TRAILING = [(), (3,), (64,), (2, 3), (300,)]
each_batch = pytest.mark.parametrize("lengths", RAGGED, ids=str)
each_order = pytest.mark.parametrize("batch_first", [False, True])


def sequences_of(
    lengths: list[int], trailing: tuple[int, ...] = (3,), dtype: torch.dtype = torch.float64
) -> list[Tensor]:
    rows = [torch.randn(n, *trailing, dtype=torch.float64) * 3 for n in lengths]
    return [
        r > 0 if dtype == torch.bool else (r.abs() if dtype == torch.uint8 else r).to(dtype) for r in rows
    ]


def same(actual: Any, expected: Any) -> None:
    """Equal to the bit, signed zeros and NaN payloads included; PackedSequences field by field."""
    if isinstance(expected, (tuple, list)):
        assert type(actual) is type(expected)
        assert len(actual) == len(expected)
        for a, b in zip(actual, expected, strict=True):
            same(a, b)
        return
    if expected is None:
        assert actual is None
        return
    assert (actual.shape, actual.dtype, actual.device) == (expected.shape, expected.dtype, expected.device)
    bits = [t.contiguous().view(torch.uint8) if t.numel() and t.dim() else t for t in (actual, expected)]
    assert torch.equal(*bits)


def with_gradients(run: Callable[[list[Tensor]], list[Tensor]], leaves: list[Tensor]) -> list[Tensor]:
    """What `run` gives, and the first and second gradients that come back."""
    leaves = [leaf.detach().clone().requires_grad_() for leaf in leaves]
    outputs = run(leaves)
    generator = torch.Generator().manual_seed(5)
    weights = [torch.randn(o.shape, generator=generator, dtype=o.dtype) for o in outputs]
    loss = sum((o**2 * w).sum() for o, w in zip(outputs, weights, strict=True))
    grads = torch.autograd.grad(loss, leaves, create_graph=True)
    seconds = torch.autograd.grad(sum((g**2).sum() for g in grads), leaves)
    return [*outputs, *grads, *seconds]


@each_batch
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("trailing", TRAILING, ids=str)
def test_every_twin_gives_torchs_bits(
    lengths: list[int], dtype: torch.dtype, trailing: tuple[int, ...]
) -> None:
    sequences = sequences_of(lengths, trailing, dtype)
    packed = theirs.pack_sequence(sequences, enforce_sorted=False)
    same(ours.pack_sequence(sequences, enforce_sorted=False), packed)
    same(ours.unpack_sequence(packed), theirs.unpack_sequence(packed))
    descending = sorted(sequences, key=len, reverse=True)
    same(ours.pack_sequence(descending), theirs.pack_sequence(descending))
    for batch_first in (False, True):
        padded = theirs.pad_sequence(sequences, batch_first, 1)
        same(ours.pad_sequence(sequences, batch_first, 1), padded)
        left = ours.pad_sequence(sequences, batch_first, padding_side="left")
        same(left, theirs.pad_sequence(sequences, batch_first, padding_side="left"))
        mine = ours.pack_padded_sequence(padded, lengths, batch_first, enforce_sorted=False)
        same(mine, theirs.pack_padded_sequence(padded, lengths, batch_first, enforce_sorted=False))
        for total in (None, 50):
            found = ours.pad_packed_sequence(packed, batch_first, 1, total)
            same(found, theirs.pad_packed_sequence(packed, batch_first, 1, total))
            assert found[0].is_contiguous()
        found = ours.unpad_sequence(padded, torch.tensor(lengths), batch_first)
        same(found, theirs.unpad_sequence(padded.clone(), torch.tensor(lengths), batch_first))


@given(lengths=ragged_lengths(min_length=1, min_batch=1), batch_first=st.booleans(), wide=st.booleans())
def test_any_lengths_give_torchs_bits_and_gradients_twice(
    lengths: list[int], batch_first: bool, wide: bool
) -> None:
    sequences = sequences_of(lengths, (130,) if wide else (2,))
    packed = theirs.pack_sequence(sequences, enforce_sorted=False)
    padded = theirs.pad_sequence(sequences, batch_first)
    count = torch.tensor(lengths)

    def repacked(data: Tensor) -> PackedSequence:
        return PackedSequence(data, *packed[1:])

    runs: list[tuple[Callable[[Any, list[Tensor]], list[Tensor]], list[Tensor]]] = [
        (lambda m, x: [m.pack_sequence(x, False).data], sequences),
        (lambda m, x: [m.pad_sequence(x, batch_first, 7.0)], sequences),
        (lambda m, x: [m.pack_padded_sequence(x[0], count, batch_first, False).data], [padded]),
        (lambda m, x: [m.pad_packed_sequence(repacked(x[0]), batch_first, 7.0)[0]], [packed.data]),
        (lambda m, x: m.unpad_sequence(x[0] * 1, count, batch_first), [padded]),
        (lambda m, x: m.unpack_sequence(repacked(x[0])), [packed.data]),
    ]
    for run, leaves in runs:
        mine = with_gradients(lambda x, run=run: run(ours, x), leaves)
        same(mine, with_gradients(lambda x, run=run: run(theirs, x), leaves))


@pytest.mark.parametrize("width", [2, 20])
def test_gradients_are_right_numerically_twice(width: int) -> None:
    packed = ours.pack_sequence(sequences_of([2, 0, 3], (width,)), False)
    lengths = [2, 0, 3]

    def every(data: Tensor) -> tuple[Tensor, ...]:
        sequence = PackedSequence(data, *packed[1:])
        padded, _ = ours.pad_packed_sequence(sequence)
        again = ours.pack_padded_sequence(padded, lengths, enforce_sorted=False)
        pieces = ours.unpad_sequence(padded, lengths)
        side = ours.pad_sequence(ours.unpack_sequence(sequence), padding_side="left")
        return (again.data**2, side**3, *(p**2 for p in pieces))

    data = packed.data.requires_grad_()
    assert torch.autograd.gradcheck(every, (data,), fast_mode=True)
    assert torch.autograd.gradgradcheck(every, (data,), fast_mode=True)


@given(lengths=ragged_lengths(), batch_first=st.booleans())
def test_zero_lengths_are_sequences_like_any_other(lengths: list[int], batch_first: bool) -> None:
    sequences = sequences_of(lengths, (2,))
    steps, batch = max(lengths, default=0) + 2, len(lengths)
    padded = torch.full((batch, steps, 2), 7.0, dtype=torch.float64)
    for b, sequence in enumerate(sequences):
        padded[b, : len(sequence)] = sequence
    grid = padded if batch_first else padded.transpose(0, 1).contiguous()
    packed = ours.pack_padded_sequence(grid, lengths, batch_first, enforce_sorted=False)
    assert packed.sorted_indices is not None
    order = packed.sorted_indices.tolist()
    assert sorted(order) == list(range(batch))
    rows = [sequences[b][t] for t in range(steps) for b in order if len(sequences[b]) > t]
    same(packed.data, torch.stack(rows) if rows else torch.empty(0, 2, dtype=torch.float64))
    found, count = ours.pad_packed_sequence(packed, batch_first, 7.0, steps)
    same(found, grid)
    assert count.tolist() == lengths
    same(ours.unpack_sequence(packed), sequences)
    same(ours.unpad_sequence(grid, lengths, batch_first), sequences)
    if lengths:
        same(ours.pack_sequence(sequences, False), packed)


def test_sorted_lengths_that_end_in_zero_carry_indices_in_their_own_order() -> None:
    packed = ours.pack_sequence(sequences_of([3, 2, 2, 0, 0]))
    assert packed.sorted_indices is not None
    assert packed.sorted_indices.tolist() == [0, 1, 2, 3, 4]
    assert packed.batch_sizes.tolist() == [3, 3, 1]
    nothing = ours.pack_padded_sequence(torch.empty(4, 2, 3), [0, 0])
    assert nothing.batch_sizes.tolist() == []
    assert ours.pad_packed_sequence(nothing)[1].tolist() == [0, 0]


@pytest.mark.parametrize(
    "given_lengths",
    [[3, 2], (3, 2), np.array([3, 2], dtype=np.int32), torch.tensor([3, 2], dtype=torch.uint8), [3.0, 2.0]],
    ids=lambda x: type(x).__name__,
)
def test_lengths_of_any_whole_kind_are_taken(given_lengths: Any) -> None:
    padded = torch.randn(5, 2, 3)
    expected = theirs.pack_padded_sequence(padded, torch.tensor([3, 2]))
    same(ours.pack_padded_sequence(padded, given_lengths), expected)
    assert [len(s) for s in ours.unpad_sequence(padded, given_lengths)] == [3, 2]


def test_signed_zeros_and_nan_payloads_survive() -> None:
    bits = torch.tensor([0x7FC12345, -0x80000000, 0x7FC00001, 0], dtype=torch.int64).to(torch.int32)
    rows = bits.view(torch.float32)
    for width in (1, 20, 300):
        sequences = [rows[:3, None].repeat(1, width), rows[1:, None].repeat(1, width)[:2]]
        packed = theirs.pack_sequence(sequences)
        same(ours.pack_sequence(sequences), packed)
        same(ours.pad_packed_sequence(packed), theirs.pad_packed_sequence(packed))
        same(ours.pad_sequence(sequences), theirs.pad_sequence(sequences))


@each_order
def test_nothing_passed_in_is_changed_and_pieces_share_no_memory(batch_first: bool) -> None:
    padded, lengths = torch.randn(4, 4, 2), torch.tensor([1, 4, 3, 2])
    before = padded.clone(), lengths.clone()
    pieces = ours.unpad_sequence(padded, lengths, batch_first)
    packed = ours.pack_padded_sequence(padded, lengths, batch_first, False)
    pieces += ours.unpack_sequence(packed)
    kept = packed.data.clone()
    for piece in pieces:
        assert piece.is_contiguous()
        assert piece.untyped_storage().nbytes() == piece.numel() * piece.element_size()
        piece.fill_(9)
    count = ours.pad_packed_sequence(packed)[1]
    count.fill_(9)
    same([padded, lengths, packed.data], [*before, kept])


def test_pieces_may_be_written_in_place_where_they_carry_gradients() -> None:
    padded = torch.randn(3, 2, requires_grad=True)
    first, second = ours.unpad_sequence(padded, [2, 3])
    first.mul_(2)
    (first.sum() + second.sum()).backward()
    same(padded.grad, torch.tensor([[2.0, 1.0], [2.0, 1.0], [0.0, 1.0]]))


def test_transposed_and_strided_batches_are_read_as_they_are() -> None:
    padded, lengths = torch.randn(4, 6, 3), [6, 5, 2, 1]
    for view in (padded.transpose(0, 1), padded[:, ::2].transpose(0, 1), padded[..., 1:].transpose(0, 1)):
        count = [min(n, view.shape[0]) for n in lengths]
        same(ours.pack_padded_sequence(view, count), theirs.pack_padded_sequence(view, count))


def test_mixed_dtypes_and_broadcast_rows_are_torchs() -> None:
    for sequences in (
        [torch.ones(3, dtype=torch.int64), torch.full((2,), 1.5)],
        [torch.ones(3), torch.ones(2, dtype=torch.float64)],
        [torch.ones(3, 4), torch.ones(2, 1)],
    ):
        same(ours.pad_sequence(sequences), theirs.pad_sequence(sequences))
        same(ours.pack_sequence(sequences), theirs.pack_sequence(sequences))


def test_generators_are_taken() -> None:
    same(
        ours.pad_sequence(torch.ones(n) for n in (2, 1)), theirs.pad_sequence([torch.ones(2), torch.ones(1)])
    )
    same(
        ours.pack_sequence(torch.ones(n) for n in (2, 1)),
        theirs.pack_sequence([torch.ones(2), torch.ones(1)]),
    )


def test_meta_data_give_shapes() -> None:
    sequences = [torch.empty(n, 3, device="meta") for n in (3, 2)]
    packed = ours.pack_sequence(sequences)
    assert packed.data.is_meta and packed.data.shape == (5, 3)
    assert ours.pad_packed_sequence(packed)[0].shape == ours.pad_sequence(sequences).shape == (3, 2, 3)
    assert [s.shape[0] for s in ours.unpack_sequence(packed)] == [3, 2]
    indices = ours.pack_sequence(sequences, False).sorted_indices
    assert indices is not None and indices.is_meta


@pytest.mark.parametrize("gradients", [False, True])
def test_rows_of_width_zero_keep_their_shapes(gradients: bool) -> None:
    """Packing them is more than torch does."""
    sequences = [torch.ones(n, 0, requires_grad=gradients) for n in (2, 0, 3)]
    packed = ours.pack_sequence(sequences, enforce_sorted=False)
    assert packed.data.shape == (5, 0) and packed.batch_sizes.tolist() == [2, 2, 1]
    same(ours.pad_sequence(sequences), theirs.pad_sequence(sequences))
    padded, lengths = ours.pad_packed_sequence(packed)
    assert padded.shape == (3, 3, 0) and lengths.tolist() == [2, 0, 3]
    assert ours.pack_padded_sequence(padded, lengths, enforce_sorted=False).data.shape == (5, 0)
    assert [s.shape for s in ours.unpack_sequence(packed)] == [(2, 0), (0, 0), (3, 0)]
    assert [s.shape for s in ours.unpad_sequence(padded, lengths)] == [(2, 0), (0, 0), (3, 0)]


@pytest.mark.parametrize("value", [2**63, 2**70, -(2**70)])
@pytest.mark.parametrize("gradients", [False, True])
def test_a_whole_padding_value_of_any_size_fills_a_float(value: int, gradients: bool) -> None:
    sequences = [torch.ones(n, requires_grad=gradients) for n in (2, 1)]
    want = theirs.pad_sequence(sequences, padding_value=value)
    assert want[1, 1] == float(value)
    same(ours.pad_sequence(sequences, padding_value=value), want)
    same(ours.pad_packed_sequence(ours.pack_sequence(sequences), padding_value=value)[0], want)


@pytest.mark.parametrize("value", [2**70, -(2**70), 2**2000])
def test_a_whole_padding_value_that_no_integer_holds_is_refused_by_name(value: int) -> None:
    sequences = [torch.ones(n, dtype=torch.int64) for n in (2, 1)]
    with pytest.raises(RuntimeError, match=f"^pad_sequence: padding_value = {value}: "):
        ours.pad_sequence(sequences, padding_value=value)
    with pytest.raises(RuntimeError, match=f"^pad_packed_sequence: padding_value = {value}: "):
        ours.pad_packed_sequence(ours.pack_sequence(sequences), padding_value=value)


@given(st.permutations(list(range(9))))
def test_inverse_of_a_permutation_is_torchs(order: list[int]) -> None:
    permutation = torch.tensor(order)
    same(ours.invert_permutation(permutation), theirs.invert_permutation(permutation))


def forged(batch_sizes: list[int], *indices: list[int] | None) -> PackedSequence:
    return PackedSequence(
        torch.ones(5), torch.tensor(batch_sizes), *(None if i is None else torch.tensor(i) for i in indices)
    )


X = torch.ones(4, 3)
PACKED = theirs.pack_padded_sequence(X, [4, 2, 1])
BAD: list[tuple[Callable[[], Any], type[Exception], str]] = [
    (lambda: ours.pack_sequence([torch.ones(1), torch.ones(2)]), RuntimeError,
     ("`lengths` array must be sorted in decreasing order when `enforce_sorted` is True, but lengths[1] = 2 is "
     "larger than lengths[0] = 1; pass `enforce_sorted=False` to have the sequences sorted")),
    (lambda: ours.pack_sequence([]), RuntimeError, "pack_sequence: received an empty list of sequences"),
    (lambda: ours.pack_sequence(3), TypeError,
     "pack_sequence: sequences must be an iterable of tensors, got int"),
    (lambda: ours.pack_sequence([X, [1]]), AttributeError,
     "pack_sequence: sequences[1] must be a tensor (length, *), got list"),
    (lambda: ours.pack_sequence([X, torch.tensor(1.0)]), IndexError,
     "pack_sequence: sequences[1] must be a tensor (length, *), got a scalar"),
    (lambda: ours.pack_sequence([X, X, torch.ones(2, 5)]), RuntimeError,
     ("pack_sequence: sequences[2] has shape (2, 5), whose trailing dimensions do not match those of "
     "sequences[0], (4, 3)")),
    (lambda: ours.pad_sequence([X, torch.ones(0)]), RuntimeError,
     ("pad_sequence: sequences[1] has shape (0,), whose trailing dimensions do not match those of "
     "sequences[0], (4, 3)")),
    (lambda: ours.pad_sequence(3), RuntimeError,
     "pad_sequence: Expected iterable for input sequences, but got arg of type: <class 'int'>"),
    (lambda: ours.pad_sequence([X, None]), TypeError,
     "pad_sequence: sequences[1] must be a tensor (length, *), got NoneType"),
    (lambda: ours.pad_sequence([torch.tensor(1.0)]), RuntimeError,
     "pad_sequence: sequences[0] must be a tensor (length, *), got a scalar"),
    (lambda: ours.pad_sequence([X], padding_side="rigth"), RuntimeError,
     "Expected padding_side to be one of left or right, but got rigth."),
    (lambda: ours.pad_sequence([X], padding_side=1), TypeError,
     "pad_sequence: padding_side must be 'left' or 'right', not int"),
    (lambda: ours.pad_sequence([X], 1), TypeError, "pad_sequence: batch_first must be bool, not int"),
    (lambda: ours.pad_sequence([X], padding_value="a"), TypeError,
     "pad_sequence: padding_value must be a number, not str"),
    (lambda: ours.pad_packed_sequence(X), AttributeError,
     "pad_packed_sequence: expected a PackedSequence, got Tensor"),
    (lambda: ours.pad_packed_sequence(PACKED, total_length=3), ValueError,
     ("Expected total_length to be at least the length of the longest sequence in input, but got "
     "total_length=3 and max sequence length being 4")),
    (lambda: ours.pad_packed_sequence(PACKED, total_length=5.0), TypeError,
     "pad_packed_sequence: total_length must be a whole number, got float"),
    (lambda: ours.pad_packed_sequence(PACKED, total_length=True), TypeError,
     "pad_packed_sequence: total_length must be a whole number, got bool"),
    (lambda: ours.unpad_sequence(X, [1], "no"), TypeError, "unpad_sequence: batch_first must be bool, not str"),
    (lambda: ours.pack_padded_sequence([[1]], [1]), TypeError,
     "pack_padded_sequence: input must be a padded tensor, got list"),
    (lambda: ours.pack_padded_sequence(torch.ones(3), [3]), IndexError,
     "pack_padded_sequence: input must be (T, B, *), got shape (3,)"),
    (lambda: ours.invert_permutation([1, 0]), TypeError,
     "invert_permutation: permutation must be a tensor, got list"),
    (lambda: ours.invert_permutation(torch.tensor([1, 2])), RuntimeError,
     "invert_permutation: permutation[1] = 2 is outside 0..1"),
    (lambda: ours.invert_permutation(torch.tensor([1.0, 0.0])), RuntimeError,
     "invert_permutation: permutation must be int64, got torch.float32"),
    (lambda: ours.invert_permutation(torch.tensor([[1, 0]])), IndexError,
     "invert_permutation: permutation must be one-dimensional, (B,), got shape (1, 2)"),
]  # fmt: skip


@pytest.mark.parametrize(("call", "kind", "message"), BAD, ids=[m for _, _, m in BAD])
def test_torchs_refusals_keep_their_class_and_name_the_culprit(
    call: Callable[[], Any], kind: type[Exception], message: str
) -> None:
    with pytest.raises(kind) as raised:
        call()
    assert type(raised.value) is kind
    assert str(raised.value) == message


BAD_LENGTHS = [
    ([5, 2, 1], "lengths[0] = 5 is longer than the padded input (T = 4)"),
    ([4, 2, -1], "lengths[2] = -1 is negative"),
    ([4, 2], "lengths has 2 entries for a batch of 3"),
    ([4, 2.5, 1], "lengths[1] = 2.5 is not a whole number"),
]


@pytest.mark.parametrize(("lengths", "message"), BAD_LENGTHS, ids=str)
def test_lengths_that_do_not_describe_the_data_are_refused(lengths: Any, message: str) -> None:
    for call in (ours.pack_padded_sequence, ours.unpad_sequence):
        with pytest.raises(padless.LengthsError) as raised:
            call(X, lengths)
        assert str(raised.value) == message


FORGED = [
    (forged([2, 3]), "batch_sizes[1] = 3 is larger than batch_sizes[0] = 2: batch sizes must be non-increasing"),
    (forged([3, 1]), "batch_sizes sum to 4, but the data have 5 rows"),
    (forged([3, 2, 0]), "batch_sizes[2] = 0 is not positive"),
    (forged([3, 2], [1, 0]), "sorted_indices has 2 entries for 3 sequences"),
    (forged([3, 2], [1, 0, 0], [1, 0, 2]), "sorted_indices names sequence 0 more than once"),
    (forged([3, 2], [1, 0, 7], [1, 0, 2]), "sorted_indices[2] = 7 is outside 0..2"),
    (forged([3, 2], None, [1, 0, 7]), "unsorted_indices[2] = 7 is outside 0..2"),
    (forged([3, 2], [0, 1, 2])._replace(unsorted_indices=torch.tensor(2)),
     "unsorted_indices must be an int64 tensor (B,), got torch.int64 ()"),
    (forged([3, 2], [0, 1, 2], [0, 1, 2, 3]), "unsorted_indices has 4 entries, sorted_indices has 3"),
    (forged([3, 2], [2, 0, 1], [2, 0, 1]),
     ("unsorted_indices is not the inverse of sorted_indices: sorted_indices[0] = 2, "
     "but unsorted_indices[2] is not 0")),
]  # fmt: skip


@pytest.mark.parametrize(("sequence", "message"), FORGED, ids=[m for _, m in FORGED])
def test_forged_packed_sequences_are_refused(sequence: PackedSequence, message: str) -> None:
    for call in (ours.pad_packed_sequence, ours.unpack_sequence):
        with pytest.raises(padless.LayoutError) as raised:
            call(sequence)
        assert str(raised.value) == message


def test_duplicates_are_no_permutation() -> None:
    with pytest.raises(padless.LayoutError, match="permutation has 1 more than once"):
        ours.invert_permutation(torch.tensor([1, 1]))


@pytest.mark.parametrize("value", [float("nan"), 1j])
def test_padding_that_the_dtype_cannot_hold_is_refused(value: Any) -> None:
    with pytest.raises((RuntimeError, TypeError)) as expected:
        theirs.pad_packed_sequence(forged([3, 2])._replace(data=torch.ones(5).long()), padding_value=value)
    with pytest.raises(expected.type, match="pad_packed_sequence: padding_value"):
        ours.pad_packed_sequence(forged([3, 2])._replace(data=torch.ones(5).long()), padding_value=value)


def test_names_are_torchs_own() -> None:
    assert sorted(ours.__all__) == sorted(theirs.__all__)
    assert ours.PackedSequence is theirs.PackedSequence


@pytest.mark.parametrize("count", [1, 2, 6, 7, 12, 13])
def test_few_sequences_are_no_special_case(count):
    sequences = [torch.randn(3, 2) for _ in range(count)]
    packed = padless.rnn.pack_sequence(sequences)
    for batch_first in (False, True):
        padded, _ = padless.rnn.pad_packed_sequence(packed, batch_first=batch_first)
        assert padded.is_contiguous()
    assert padless.rnn.pack_padded_sequence(torch.zeros(4, count, 0), [4] * count).data.shape == (
        4 * count,
        0,
    )
    assert padless.rnn.pack_sequence([torch.zeros(4, 0)] * count).data.shape == (4 * count, 0)


def test_scalar_data_are_refused_by_name():
    with pytest.raises(padless.LayoutError, match="got a scalar"):
        padless.rnn.pad_packed_sequence(PackedSequence(torch.tensor(3.0), torch.tensor([1])))

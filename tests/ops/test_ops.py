"""Per-sequence operations against a loop over the sequences in plain torch, on both kinds of input."""

from __future__ import annotations

import re

import numpy
import pytest
import torch
from hypothesis import given
from torch.nn.utils.rnn import PackedSequence

import padless
from padless import Packed, ops

from .. import strategies

LENGTHS = [[3, 1, 5, 2], [0, 4, 0, 1], [2, 2, 2], [1], [0, 0], [], [40, 1, 1]]
each_lengths = pytest.mark.parametrize("lengths", LENGTHS, ids=str)
each_kind = pytest.mark.parametrize("kind", ["Packed", "PackedSequence"])
REDUCTIONS = {
    "sum": lambda x: x.sum(0),
    "mean": lambda x: x.mean(0) if len(x) else x.sum(0),
    "max": lambda x: x.amax(0) if len(x) else x.new_full(x.shape[1:], -torch.inf),
    "min": lambda x: x.amin(0) if len(x) else x.new_full(x.shape[1:], torch.inf),
    "prod": lambda x: x.prod(0),
    "logsumexp": lambda x: x.logsumexp(0) if len(x) else x.new_full(x.shape[1:], -torch.inf),
}
ALONG = {
    "softmax": (lambda p: ops.softmax(p), lambda x: x.softmax(0)),
    "log_softmax": (lambda p: ops.log_softmax(p), lambda x: x.log_softmax(0)),
    "cumsum": (lambda p: ops.cumsum(p), lambda x: x.cumsum(0)),
    "reverse": (lambda p: ops.reverse(p), lambda x: x.flip(0)),
    "roll": (lambda p: ops.roll(p, 2), lambda x: x.roll(2, 0)),
    "roll back": (lambda p: ops.roll(p, -1), lambda x: x.roll(-1, 0)),
    "shift": (lambda p: ops.shift(p, 1, 7), lambda x: torch.cat([torch.full_like(x[:1], 7), x[:-1]])),
    "shift back": (lambda p: ops.shift(p, -2, 7), lambda x: torch.cat([x[2:], torch.full_like(x[:2], 7)])),
    "head": (lambda p: ops.head(p, 2), lambda x: x[:2]),
    "tail": (lambda p: ops.tail(p, 2), lambda x: x[max(len(x) - 2, 0) :]),
    "cat": (lambda p: ops.cat([p, ops.reverse(p)]), lambda x: torch.cat([x, x.flip(0)])),
}


def rows_of(lengths, dtype=torch.float64):
    torch.manual_seed(0)
    return [torch.randn(n, 3, dtype=dtype) for n in lengths]


def batch_of(sequences, kind, width=3):
    data = torch.cat(sequences) if sequences else torch.zeros(0, width, dtype=torch.float64)
    packed = Packed(data, [len(s) for s in sequences])
    return packed.to_packed_sequence() if kind == "PackedSequence" else packed


def unpacked(batch):
    return (Packed.from_packed_sequence(batch) if isinstance(batch, PackedSequence) else batch).unpack()


@each_kind
@each_lengths
@pytest.mark.parametrize("name", REDUCTIONS)
def test_a_reduction_is_that_of_each_sequence(name, lengths, kind):
    sequences = rows_of(lengths)
    got = getattr(ops, name)(batch_of(sequences, kind))
    assert got.shape == (len(lengths), 3)
    for row, sequence in zip(got, sequences, strict=True):
        torch.testing.assert_close(row, REDUCTIONS[name](sequence))


@each_kind
@each_lengths
@pytest.mark.parametrize("name", ALONG)
def test_an_operation_along_time_is_that_of_each_sequence(name, lengths, kind):
    ours, theirs = ALONG[name]
    sequences = rows_of(lengths)
    batch = batch_of(sequences, kind)
    got = ours(batch)
    assert type(got) is type(batch)
    results = unpacked(got)
    assert len(results) == len(sequences)
    for row, sequence in zip(results, sequences, strict=True):
        torch.testing.assert_close(row, theirs(sequence))


@each_kind
@pytest.mark.parametrize("name", [*REDUCTIONS, *ALONG, "first", "last"])
def test_gradients_are_right_twice(name, kind):
    def run(data):
        packed = Packed(data, [3, 1, 4])
        if kind == "PackedSequence":
            packed = packed.to_packed_sequence()
        result = ALONG[name][0](packed) if name in ALONG else getattr(ops, name)(packed)
        return result if isinstance(result, torch.Tensor) else result.data

    data = torch.randn(8, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(run, data)
    assert torch.autograd.gradgradcheck(run, data)


@pytest.mark.parametrize(
    ("factors", "gradient"),
    [
        ([1e-30, 1e-30], 1.0),
        ([1e-38, 1e-3, 5.0], 1.0),
        ([1e-30], 1e-20),
        ([1e30, 3.0], 1e20),
        ([2.0, 3.0], 0.0),
    ],
)
def test_the_gradient_of_a_product_that_underflows_is_exact(factors, gradient):
    rows = torch.tensor(factors, requires_grad=True)
    exact = rows.detach().double().requires_grad_()
    exact.prod().backward(torch.tensor(gradient, dtype=torch.float64))
    ops.prod(Packed(rows, [len(factors)])).backward(torch.tensor([gradient]))
    torch.testing.assert_close(rows.grad, exact.grad.float(), rtol=4e-7, atol=0)


def test_the_gradient_of_a_product_with_zeros_is_exact_twice():
    data = torch.tensor([0.0, 2, 3, 0, 0, 5], dtype=torch.float64, requires_grad=True)
    run = lambda d: ops.prod(Packed(d, [3, 3]))  # noqa: E731
    assert torch.autograd.gradcheck(run, data)
    assert torch.autograd.gradgradcheck(run, data)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("name", [*REDUCTIONS, *ALONG])
def test_what_is_not_finite_stays_in_its_sequence(name, bad):
    clean = torch.randn(9, 2, dtype=torch.float64)
    dirty = clean.clone()
    dirty[3:5] = bad
    results = []
    for data in (clean, dirty):
        packed = Packed(data, [3, 2, 4])
        result = ALONG[name][0](packed) if name in ALONG else getattr(ops, name)(packed)
        results.append(result.unpack() if isinstance(result, Packed) else list(result))
    for i in (0, 2):
        assert torch.equal(results[0][i], results[1][i])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_narrow_floats_are_summed_in_float32(dtype):
    data = torch.full((3000,), 0.125, dtype=dtype)
    packed = Packed(data, [3000])
    assert ops.sum(packed).item() == 375 if dtype == torch.float16 else ops.sum(packed).item() == 376
    assert ops.mean(packed).item() == 0.125
    assert ops.cumsum(packed).dtype == dtype


def test_integers_keep_their_identities():
    packed = Packed(torch.tensor([4, -7, 2], dtype=torch.int32), [2, 0, 1])
    assert ops.sum(packed).tolist() == [-3, 0, 2]
    assert ops.prod(packed).tolist() == [-28, 1, 2]
    assert ops.max(packed).tolist() == [4, -(2**31), 2]
    assert ops.min(packed).tolist() == [-7, 2**31 - 1, 2]
    assert ops.cumsum(packed).data.tolist() == [4, -3, 2]
    with pytest.raises(TypeError, match="mean takes floating-point data"):
        ops.mean(packed)


@each_kind
def test_first_and_last_take_a_default_for_length_0(kind):
    sequences = rows_of([2, 0, 3])
    batch = batch_of(sequences, kind)
    for name, at in (("first", 0), ("last", -1)):
        with pytest.raises(padless.LengthsError, match=rf"{name}: lengths\[1\] = 0"):
            getattr(ops, name)(batch)
        got = getattr(ops, name)(batch, default=9)
        assert torch.equal(got[0], sequences[0][at])
        assert got[1].tolist() == [9, 9, 9]
        assert torch.equal(got[2], sequences[2][at])


@each_kind
@each_lengths
def test_pieces_joined_again_are_the_whole(lengths, kind):
    batch = batch_of(rows_of(lengths), kind)
    for pieces in (ops.chunks(batch, 3), ops.split(batch, [1, 0, 2, 100])):
        if pieces:
            whole = ops.cat(pieces)
            for a, b in zip(unpacked(whole), unpacked(batch), strict=True):
                assert torch.equal(a, b)
    with pytest.raises(ValueError, match="k must be at least 1"):
        ops.chunks(batch, 0)


@each_kind
def test_cut_begins_a_piece_where_it_is_reported(kind):
    sequences = rows_of([3, 0, 4])
    marks = [
        torch.tensor([False, False, True]),
        torch.zeros(0, dtype=torch.bool),
        torch.tensor([True, True, False, True]),
    ]
    batch, where = batch_of(sequences, kind), batch_of(marks, kind)
    for mask in (where, where.data):
        pieces, owner = ops.cut(batch, mask)
        assert owner.tolist() == [0, 0, 2, 2, 2]
        expected = [sequences[0][:2], sequences[0][2:], sequences[2][:1], sequences[2][1:3], sequences[2][3:]]
        for got, piece in zip(unpacked(pieces), expected, strict=True):
            assert torch.equal(got, piece)


@each_kind
@each_lengths
def test_expand_gives_every_row_the_value_of_its_sequence(lengths, kind):
    values = torch.randn(len(lengths), 2)
    for i, rows in enumerate(unpacked(ops.expand(batch_of(rows_of(lengths), kind), values))):
        assert torch.equal(rows, values[i].expand(lengths[i], 2))


def test_expand_does_not_move_the_data(monkeypatch):
    batch = batch_of(rows_of([3, 1]), "PackedSequence")
    monkeypatch.setattr(Packed, "from_packed_sequence", None)
    assert ops.expand(batch, torch.tensor([1, 2])).data.tolist() == [1, 2, 1, 1]
    with pytest.raises(TypeError, match="expand takes a Packed or a PackedSequence, got Tensor"):
        ops.expand(batch.data, torch.zeros(2))


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda p: ops.sum(torch.zeros(3)), TypeError, "sum takes a Packed or a PackedSequence, got Tensor"),
        (lambda p: ops.head(p, -1), ValueError, "head: k must not be negative, got -1"),
        (lambda p: ops.roll(p, 0.5), TypeError, "roll: shift must be a whole number, got float"),
        (lambda p: ops.cat([]), ValueError, "at least one batch"),
        (lambda p: ops.head(p, True), TypeError, "head: k must be a whole number, got bool"),
        (lambda p: ops.split(p, [1, True]), TypeError, r"split: sizes\[1\] must be a whole number, got bool"),
        (lambda p: ops.cat([p, p[:1]]), padless.LengthsError, "batch 1 has 1 sequences, but batch 0 has 2"),
        (
            lambda p: ops.cat([p.map(lambda x: x.view(3, 1)), Packed(torch.zeros(0), [0, 0])]),
            padless.LayoutError,
            r"cat: batch 1 has rows of shape \(\), but batch 0 has \(1,\)",
        ),
        (lambda p: ops.split(p, [1]), padless.LengthsError, r"sizes sum to 1, but lengths\[0\] = 2"),
        (
            lambda p: ops.cut(p, torch.zeros(2, 2) > 0),
            padless.LayoutError,
            r"got torch.bool \(2, 2\); a mask \(T, B\) becomes a batch by pack\(where, lengths, batch_first=False\)",
        ),
        (lambda p: ops.cut(p, torch.zeros(3)), padless.LayoutError, r"where must be bool \(N,\) = \(3,\)"),
        (lambda p: ops.expand(p, torch.zeros(3)), padless.LayoutError, "with B = 2, got"),
        (lambda p: ops.softmax(p.to(torch.int64)), TypeError, "softmax takes floating-point data"),
    ],
)
def test_a_bad_call_names_what_is_wrong(call, error, text):
    with pytest.raises(error, match=text):
        call(Packed(torch.zeros(3), [2, 1]))


@given(lengths=strategies.lengths())
def test_every_operation_holds_for_any_lengths(lengths):
    sequences = rows_of(lengths)
    for kind in ("Packed", "PackedSequence"):
        batch = batch_of(sequences, kind)
        for name, theirs in REDUCTIONS.items():
            for row, sequence in zip(getattr(ops, name)(batch), sequences, strict=True):
                torch.testing.assert_close(row, theirs(sequence))
        for ours, theirs in ALONG.values():
            for rows, sequence in zip(unpacked(ours(batch)), sequences, strict=True):
                torch.testing.assert_close(rows, theirs(sequence))


def test_values_that_tie_share_a_gradient_even_at_infinity():
    data = torch.tensor([-torch.inf, -torch.inf, 1.0, 1.0], requires_grad=True)
    for run in (ops.max, ops.min):
        (grad,) = torch.autograd.grad(run(Packed(data, [2, 0, 2]))[[0, 2]].sum(), data)
        assert grad.tolist() == [0.5, 0.5, 0.5, 0.5]


@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")  # torch's own, when jvp is first used
@pytest.mark.parametrize("name", [*REDUCTIONS, *ALONG])
def test_transforms_see_through(name):
    def run(data):
        packed = Packed(data, [3, 1, 4])
        result = ALONG[name][0](packed) if name in ALONG else getattr(ops, name)(packed)
        return result.data if isinstance(result, Packed) else result

    data = torch.randn(8, 2, dtype=torch.float64)
    _, tangent = torch.func.jvp(run, (data,), (torch.ones_like(data),))
    jacobian = torch.func.jacrev(run)(data)
    torch.testing.assert_close(tangent, jacobian.flatten(-2).sum(-1))


def test_any_number_of_steps_is_taken():
    packed = Packed(torch.arange(4), [3, 1])
    for same in (ops.head(packed, 10**19), ops.tail(packed, 10**19), ops.split(packed, [10**19])[0]):
        assert torch.equal(same.data, packed.data)
    assert ops.shift(packed, 10**12, fill=7).data.tolist() == [7, 7, 7, 7]


def test_a_default_that_the_data_cannot_hold_is_refused():
    whole = Packed(torch.arange(3), [3, 0])
    with pytest.raises(TypeError, match="first: default = 0.5 cannot be held by torch.int64"):
        ops.first(whole, default=0.5)
    with pytest.raises(padless.LayoutError, match=r"must be a number or have shape \(2,\), got \(3,\)"):
        ops.last(Packed(torch.zeros(3, 2), [3, 0]), default=torch.zeros(3))
    with pytest.raises(TypeError, match="max takes data that have an order"):
        ops.max(Packed(torch.zeros(3, dtype=torch.complex64), [3]))


@pytest.mark.parametrize("name", ["softmax", "log_softmax", "logsumexp"])
@pytest.mark.parametrize(
    "values", [(torch.inf, 1.0), (-torch.inf, -torch.inf), (torch.inf, torch.inf), (-torch.inf, 1.0)]
)
def test_infinite_rows_give_what_torch_gives(name, values):
    rows = torch.tensor(values)
    expected = getattr(torch, name)(rows, 0)
    found = getattr(ops, name)(Packed(rows, [2]))
    found = found.data if isinstance(found, Packed) else found.squeeze(0)
    torch.testing.assert_close(found, expected, equal_nan=True)


def test_marks_of_another_kind_or_other_lengths_are_refused():
    batch = Packed(torch.arange(5), [3, 2])
    sequence, marks = batch.to_packed_sequence(), batch.map(lambda rows: rows == 1)
    with pytest.raises(TypeError, match="one kind, got Packed and PackedSequence"):
        ops.cut(batch, marks.to_packed_sequence())
    with pytest.raises(TypeError, match="one kind, got PackedSequence and Packed"):
        ops.cut(sequence, marks)
    with pytest.raises(padless.LengthsError, match=r"lengths\[0\] is 3 in the batch, but 1 in the where"):
        ops.cut(batch, Packed(marks.data, [1, 4]))
    _, owner = ops.cut(sequence, marks.to_packed_sequence())
    assert owner.tolist() == ops.cut(batch, marks)[1].tolist() == [0, 0, 1]


def test_pieces_are_named_by_arrays_and_batches_come_from_generators():
    batch = Packed(torch.arange(5), [3, 2])
    for sizes in ([2, 1], numpy.array([2, 1]), torch.tensor([2, 1])):
        assert [piece.lengths.tolist() for piece in ops.split(batch, sizes)] == [[2, 2], [1, 0]]
    assert ops.cat(part for part in (batch, batch)).lengths.tolist() == [6, 4]


def test_first_and_last_with_a_default_compile_as_one_graph():
    batch = Packed(torch.randn(5), [3, 0, 2])

    def ends(batch):
        return ops.first(batch, default=0) + ops.last(batch, default=1)

    compiled = torch.compile(ends, fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(batch), ends(batch))


@pytest.mark.parametrize("default", [[1.0, 2.0], numpy.array([1.0, 2.0]), torch.tensor([1.0, 2.0]).double()])
def test_a_default_row_of_any_kind(default):
    got = ops.first(Packed(torch.zeros(1, 2), [0, 1]), default=default)
    assert got.tolist() == [[1, 2], [0, 0]]


def test_a_default_of_another_dtype_is_mapped_over():
    batch, defaults = Packed(torch.zeros(1, 2), [0, 1]), torch.randn(5, 2).double()
    got = torch.vmap(lambda default: ops.first(batch, default=default))(defaults)
    assert torch.equal(got[:, 0], defaults.float())


@pytest.mark.parametrize(
    ("dtype", "value", "error"),
    [
        (torch.int64, 1.5, TypeError),
        (torch.float32, 1j, TypeError),
        (torch.int64, float("inf"), RuntimeError),
        (torch.uint8, -1, RuntimeError),
        (torch.uint8, 300, RuntimeError),
        (torch.bool, 7, RuntimeError),
        (torch.float32, 1e300, RuntimeError),
        (torch.float16, 1e5, RuntimeError),
        (torch.complex64, 1e300j, RuntimeError),
        (torch.float64, 10**400, RuntimeError),
    ],
)
def test_a_number_that_the_dtype_cannot_hold_is_refused_by_name(dtype, value, error):
    batch = Packed(torch.ones(3).to(dtype), [2, 0, 1])
    for name, call in {
        "shift: fill": lambda number: ops.shift(batch, 1, number),
        "first: default": lambda number: ops.first(batch, default=number),
        "last: default": lambda number: ops.last(batch, default=number),
        "pad: value": batch.pad,
    }.items():
        with pytest.raises(error, match=re.escape(f"{name} = {value} cannot be held by {dtype}")):
            call(value)
        with pytest.raises(TypeError, match=f"{name} must be a number, got str"):
            call("1")
        call(torch.tensor(1))
        call(numpy.float32(1))


def test_infinity_and_whole_floats_are_held():
    assert ops.shift(Packed(torch.ones(2), [2]), 1, -torch.inf).data.tolist() == [-torch.inf, 1]
    assert Packed(torch.ones(2, dtype=torch.bfloat16), [2, 0]).pad(torch.inf)[1, 0] == torch.inf
    assert ops.shift(Packed(torch.tensor([1, 2]), [2]), 1, -3.0).data.tolist() == [-3, 1]
    assert ops.shift(Packed(torch.ones(1), [1]), 1, 10**30).data.item() == torch.tensor(1e30)


@pytest.mark.parametrize("lengths", [[3], [3, 0]])
def test_a_default_row_of_another_shape_or_range_is_refused_with_and_without_empty_sequences(lengths):
    with pytest.raises(padless.LayoutError, match=r"must be a number or have shape \(\), got \(7,\)"):
        ops.first(Packed(torch.ones(3), lengths), default=torch.zeros(7))
    whole = Packed(torch.ones(3, 2, dtype=torch.uint8), lengths)
    with pytest.raises(RuntimeError, match="last: default = -1 cannot be held by torch.uint8"):
        ops.last(whole, default=torch.tensor([1, -1]))
    assert ops.last(whole, default=torch.tensor([1, 2]))[1:].tolist() == [[1, 2]] * (len(lengths) - 1)


@pytest.mark.parametrize("steps", [-(2**63), 2**63, 2**64 + 1, -(10**30), 2**62 + 1, 5, -4])
def test_rows_roll_and_shift_by_any_number_of_steps(steps):
    batch = Packed(torch.tensor([1, 2, 3, 4, 5]), [3, 0, 2])
    rolled = torch.cat([torch.tensor([1, 2, 3]).roll(steps % 3), torch.tensor([4, 5]).roll(steps % 2)])
    assert torch.equal(ops.roll(batch, steps).data, rolled)
    assert ops.shift(batch, steps, fill=7).data.tolist() == [7] * 5


@pytest.mark.parametrize("op", [ops.softmax, ops.log_softmax])
def test_softmax_is_mapped_and_differentiated_by_transforms(op):
    def alone(x):
        return torch.cat([getattr(torch, op.__name__)(part, 0) for part in (x[:2], x[2:])])

    def together(x):
        return op(Packed(x, [2, 1])).data

    batch, x = torch.randn(4, 3, dtype=torch.float64), torch.randn(3, dtype=torch.float64)
    torch.testing.assert_close(torch.vmap(together)(batch), torch.stack([alone(row) for row in batch]))
    for transform in (torch.func.jacfwd, torch.func.jacrev):
        torch.testing.assert_close(transform(together)(x), transform(alone)(x))
    square = [torch.func.hessian(lambda x, f=f: f(x).pow(2).sum())(x) for f in (together, alone)]
    torch.testing.assert_close(*square)


@pytest.mark.parametrize("dtype", [torch.int64, torch.uint8, torch.bool, torch.complex64, torch.complex128])
def test_logsumexp_takes_every_dtype_that_torchs_takes(dtype):
    rows = torch.tensor([[3, 0], [1, 1], [0, 2], [90, 0]]).to(dtype)
    if dtype.is_complex:
        rows = (rows + torch.tensor([1j, 2j])).requires_grad_()
    found = ops.logsumexp(Packed(rows, [3, 0, 1]))
    expected = torch.stack([rows[:3].logsumexp(0), rows[3:].logsumexp(0)])
    torch.testing.assert_close(found[[0, 2]], expected)
    assert (found[1].real == -torch.inf).all()
    if dtype.is_complex:
        (want,) = torch.autograd.grad(expected.abs().sum(), rows)
        torch.testing.assert_close(torch.autograd.grad(found[[0, 2]].abs().sum(), rows), (want,))


@pytest.mark.parametrize(
    "dtype", [torch.uint16, torch.uint32, torch.uint64, torch.float8_e4m3fn, torch.bool, torch.complex64]
)
def test_rows_of_every_dtype_are_shifted_and_joined(dtype):
    numbers = torch.tensor([[1, 1], [0, 0], [1, 1], [1, 1]])  # torch selects no single numbers of uint16
    batch = Packed(numbers.to(dtype), [3, 1])
    assert ops.shift(batch, 1).data[:, 0].to(torch.complex64).tolist() == [0, 1, 0, 0]
    assert ops.cat([batch, batch]).data[:, 0].to(torch.complex64).tolist() == [1, 0, 1, 1, 0, 1, 1, 1]


@pytest.mark.parametrize("kind", [list, tuple, numpy.asarray])
def test_cut_takes_lists_and_arrays_of_bools(kind):
    batch, where = Packed(torch.arange(4), [3, 1]), [False, False, True, False]
    pieces, owner = ops.cut(batch, kind(where))
    assert pieces.lengths.tolist() == [2, 1, 1]
    assert owner.tolist() == [0, 0, 1]

"""Rows moved by walking sequences and steps, against rows moved by an index."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

from padless import Packed, rnn
from padless.errors import BackendError
from padless.layout.layout import Layout
from padless.layout.rows import RowMap, join_rows, move_rows, split_rows
from padless.layout.walks import arranged, copy_rows, is_walkable, lengths_of_slots
from padless.library import missing
from padless.nn import GRU

from ..strategies import lengths as some_lengths

pytestmark = pytest.mark.filterwarnings(
    "ignore:.torch.jit:DeprecationWarning"
)  # torch's own, in forward mode

if missing():
    pytest.skip(str(missing()), allow_module_level=True)

ROWS: list[Callable[[int], Tensor]] = [
    lambda n: torch.arange(n) % 2 == 0,
    lambda n: torch.arange(n * 3, dtype=torch.int8).view(n, 3),
    lambda n: torch.arange(n, dtype=torch.float32),
    lambda n: torch.arange(n, dtype=torch.int64),
    lambda n: torch.arange(n * 12, dtype=torch.float16).view(n, 12),
    lambda n: torch.arange(n * 6, dtype=torch.float64).view(n, 2, 3),
    lambda n: torch.complex(torch.arange(n * 40.0), torch.ones(n * 40)).view(n, 40),
]
MAPS: dict[str, Callable[[Layout], RowMap]] = {
    "time-major": lambda layout: layout.time_major,
    "back": lambda layout: layout.time_major.inverted(),
    "pad": lambda layout: layout.padded(layout.steps + 2, batch_first=True),
    "pad left": lambda layout: layout.padded(layout.steps + 1, batch_first=True, left=True),
    "pad left, steps first": lambda layout: layout.padded(layout.steps, batch_first=False, left=True),
    "unpad": lambda layout: layout.padded(layout.steps + 1, batch_first=False, left=True).inverted(),
    "time-major to cells": lambda layout: layout.padded_time_major(layout.steps + 3, batch_first=True),
    "cells to time-major": lambda layout: layout.padded_time_major(
        layout.steps + 3, batch_first=False
    ).inverted(),
}


def by_index(rows: RowMap) -> RowMap:
    """The same map without its walk."""
    return RowMap(
        rows.index, rows.inverse, rows.sources, rows.targets, has_fill=rows.has_fill, has_drop=rows.has_drop
    )


@pytest.mark.parametrize("name", MAPS)
@given(some_lengths(giant=200), st.sampled_from(ROWS))
def test_a_walk_moves_what_an_index_moves(
    name: str, lengths: list[int], rows_of: Callable[[int], Tensor]
) -> None:
    rows = MAPS[name](Layout(torch.tensor(lengths, dtype=torch.int64)))
    data = rows_of(rows.sources)
    assert rows.has_walk and is_walkable(data)
    fill = 1 if rows.has_fill else 0
    assert torch.equal(move_rows(data, rows, fill=fill), move_rows(data, by_index(rows), fill=fill))


@pytest.mark.parametrize("threads", [1, 3])
def test_many_tiles_on_threads(threads: int) -> None:
    lengths = (torch.arange(150) * 37) % 211
    layout = Layout(lengths)
    data = torch.randn(layout.rows, 40)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(threads)
        for name, of_layout in MAPS.items():
            rows = of_layout(layout)
            source = data if rows.sources == layout.rows else torch.randn(rows.sources, 40)
            moved = move_rows(source, rows)
            assert torch.equal(moved, move_rows(source, by_index(rows))), name
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("name", ["time-major", "pad left", "time-major to cells"])
def test_pieces_and_their_gradients(name: str) -> None:
    lengths = [3, 0, 5, 1]
    layout = Layout(torch.tensor(lengths))
    pieces = [torch.randn(n, 2, dtype=torch.float64, requires_grad=True) for n in lengths]
    rows = MAPS[name](layout) if name != "time-major to cells" else layout.time_major

    def joined(*pieces: Tensor) -> Tensor:
        return join_rows(pieces, rows, fill=7)

    expected = move_rows(torch.cat(pieces), by_index(rows), fill=7)
    assert torch.equal(joined(*pieces), expected)
    assert torch.autograd.gradcheck(joined, tuple(pieces), check_forward_ad=True, check_batched_grad=True)
    assert torch.autograd.gradgradcheck(joined, tuple(pieces))

    back = rows.inverted()
    source = torch.randn(back.sources, 2, dtype=torch.float64, requires_grad=True)
    split = split_rows(source, back, lengths)
    assert all(
        torch.equal(a, b) for a, b in zip(split, split_rows(source, by_index(back), lengths), strict=True)
    )
    assert torch.autograd.gradcheck(
        lambda s: tuple(split_rows(s, back, lengths)), source, check_forward_ad=True, check_batched_grad=True
    )


def test_what_torch_follows_is_not_walked() -> None:
    data = torch.randn(6, 4)
    assert is_walkable(data)
    assert not is_walkable(data.t()) and not is_walkable(data[:, :0])
    assert not is_walkable(torch._neg_view(data)) and not is_walkable(data.to("meta"))
    assert not is_walkable(torch.complex(data, data).conj())
    with torch.autograd.forward_ad.dual_level():
        assert not is_walkable(data)
    layout = Layout(torch.tensor([4, 2]))
    rows = layout.padded(4, batch_first=True)
    batched = torch.vmap(lambda d: move_rows(d, rows))(data.expand(3, 6, 4))
    assert torch.equal(batched[1], move_rows(data, rows))


def test_a_tangent_passes_through_a_move_without_gradients() -> None:
    layout = Layout(torch.tensor([1, 3]))
    data, tangent = torch.randn(4, 2), torch.randn(4, 2)
    with torch.no_grad(), torch.autograd.forward_ad.dual_level():
        moved = move_rows(torch.autograd.forward_ad.make_dual(data, tangent), layout.time_major)
        found = torch.autograd.forward_ad.unpack_dual(moved).tangent
    assert found is not None and torch.equal(found, move_rows(tangent, layout.time_major))


def test_pieces_of_other_lengths_are_refused() -> None:
    rows = Layout(torch.tensor([2, 1])).time_major
    pieces = [torch.zeros(2, 3), torch.zeros(2, 3)]
    with pytest.raises(BackendError, match="as many rows as its length says"):
        copy_rows(rows.walk, pieces, torch.zeros(3, 3))
    with pytest.raises(BackendError, match="native move_rows"):
        copy_rows(rows.walk, torch.zeros(3, 3), torch.zeros(2, 3))


@given(some_lengths(giant=200))
def test_arithmetic_of_the_library(lengths: list[int]) -> None:
    given_lengths = torch.tensor(lengths, dtype=torch.int64)
    order = torch.sort(given_lengths, descending=True, stable=True)[1]
    steps = max(lengths, default=0)
    found = arranged(given_lengths, order, steps)
    assert found is not None
    slots, offsets, batch_sizes = found
    assert torch.equal(slots, torch.argsort(order))
    assert offsets.tolist() == [sum(lengths[:b]) for b in range(len(lengths) + 1)]
    assert batch_sizes.tolist() == [sum(n > t for n in lengths) for t in range(steps)]
    back = lengths_of_slots(batch_sizes, order, slots, rows=sum(lengths))
    assert back is not None and torch.equal(back, given_lengths)


@pytest.mark.parametrize(
    ("batch_sizes", "order", "slots", "rows"),
    [
        ([1, 2], [0, 1], [0, 1], 3),  # grows
        ([2, 0], [0, 1], [0, 1], 2),  # not positive
        ([2, 1], [0, 1], [0, 1], 4),  # another sum
        ([3, 1], [0, 1], [0, 1], 4),  # more sequences than indices
        ([2, 1], [0, 2], [0, 1], 3),  # outside
        ([2, 1], [0, 0], [0, 1], 3),  # twice
        ([2, 1], [0, 1], [1, 0], 3),  # no inverse
        ([2**62, 1], None, None, 3),
    ],
)
def test_what_no_batch_can_have_has_no_lengths(
    batch_sizes: list[int], order: list[int] | None, slots: list[int] | None, rows: int
) -> None:
    indices = [None if i is None else torch.tensor(i) for i in (order, slots)]
    assert lengths_of_slots(torch.tensor(batch_sizes), *indices, rows=rows) is None


LENGTHS = [3, 1, 4]


def padded_of_packed(rows: Tensor) -> Tensor:
    return rnn.pad_packed_sequence(PackedSequence(rows, torch.tensor([3, 2, 2, 1])))[0]


def packed_of_padded(rows: Tensor) -> Tensor:
    padded = torch.cat([rows, rows])[:12].view(3, 4, 2)
    return rnn.pack_padded_sequence(padded, LENGTHS, True, False).data


FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "pad_packed_sequence": padded_of_packed,
    "pack_padded_sequence": packed_of_padded,
    "pack_sequence": lambda rows: rnn.pack_sequence(rows.split(LENGTHS), enforce_sorted=False).data,
    "unpack_sequence": lambda rows: torch.cat(
        rnn.unpack_sequence(PackedSequence(rows, torch.tensor([3, 2, 2, 1])))
    ),
    "pad_sequence": lambda rows: rnn.pad_sequence(rows.split(LENGTHS), padding_side="left"),
    "Packed": lambda rows: Packed.from_packed_sequence(
        PackedSequence(rows, torch.tensor([3, 2, 2, 1]))
    ).pad(),
}


@pytest.mark.filterwarnings("ignore:.*lossy:UserWarning")
@pytest.mark.parametrize("name", FUNCTIONS)
def test_nested_transforms(name: str) -> None:
    function, rows = FUNCTIONS[name], torch.randn(8, 2, dtype=torch.float64)

    def loss(rows: Tensor) -> Tensor:
        return (function(rows) ** 3).sum()

    grad = torch.autograd.functional.jacobian(loss, rows)
    assert torch.allclose(torch.func.grad(loss)(rows), grad)
    expected = torch.autograd.functional.hessian(loss, rows)
    assert torch.allclose(torch.func.hessian(loss)(rows), expected)
    assert torch.allclose(torch.func.vmap(torch.func.grad(loss))(torch.stack([rows, rows]))[1], grad)


def test_another_default_device_changes_nothing() -> None:
    sequences = [torch.randn(n, 2) for n in LENGTHS]
    packed = rnn.pack_sequence(sequences, enforce_sorted=False)
    layer, step = GRU(2, 3), torch.randn(1, 1, 2)
    with torch.no_grad():
        expected = layer(step)[0]
        with torch.device("meta"):
            for found, sequence in zip(rnn.unpack_sequence(packed), sequences, strict=True):
                assert torch.equal(found, sequence)
            assert torch.equal(layer(step)[0], expected)
        assert torch.equal(layer(step)[0], expected)


def test_a_layout_is_freed_with_its_last_use() -> None:
    gc.disable()
    try:
        layout = Layout(torch.tensor(LENGTHS))
        move_rows(torch.randn(8, 2, requires_grad=True), layout.time_major)
        freed = weakref.ref(layout)
        del layout
        assert freed() is None
    finally:
        gc.enable()


@pytest.mark.filterwarnings("ignore:torch.quantize:UserWarning")  # deprecated, but there
def test_zeros_without_memory_and_quantized_numbers() -> None:
    zeros = torch._efficientzerotensor((3, 4, 2))
    assert torch.equal(rnn.pack_padded_sequence(zeros, LENGTHS, True, False).data, torch.zeros(8, 2))
    assert not is_walkable(torch.quantize_per_tensor(torch.ones(3, 2), 0.1, 0, torch.qint8))

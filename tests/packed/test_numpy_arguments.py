"""Lengths and indices as NumPy arrays of any stride, byte order and writability, and rows of unsigned integers."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import padless
from padless import ops

LENGTHS = {
    "reversed": np.array([2, 1, 0, 3])[::-1],
    "read-only": np.frombuffer(np.array([3, 0, 1, 2]).tobytes(), np.int64),
    "big-endian": np.array([3, 0, 1, 2], ">i8"),
    "strided": np.array([3, 9, 0, 9, 1, 9, 2, 9])[::2],
}


@pytest.mark.parametrize("kind", LENGTHS)
def test_lengths_may_be_any_array(kind):
    lengths, x = LENGTHS[kind], torch.arange(12.0).view(4, 3)
    rows = torch.cat([x[i, :n] for i, n in enumerate([3, 0, 1, 2])])
    assert torch.equal(padless.pack(x, lengths).data, rows)
    assert padless.Packed(rows, lengths).lengths.tolist() == [3, 0, 1, 2]
    assert torch.equal(padless.rnn.unpad_sequence(x, lengths, True)[3], x[3, :2])
    expected = padless.rnn.pack_padded_sequence(x, [3, 0, 1, 2], True, False)
    for want, got in zip(expected, padless.rnn.pack_padded_sequence(x, lengths, True, False), strict=True):
        assert torch.equal(got, want)
    layer = padless.nn.GRU(1, 2, batch_first=True)
    assert torch.equal(layer(x[..., None], lengths=lengths)[0], layer(x[..., None], lengths=[3, 0, 1, 2])[0])
    offsets = np.array([6, 3, 0])[::-1]
    assert padless.Packed.from_offsets(torch.arange(6), offsets).lengths.tolist() == [3, 3]


@pytest.mark.parametrize(
    "index",
    [
        np.argsort([1, 2, 3])[::-1],
        np.array([2, 1, 0], ">i8"),
        np.array([2, 1, 0], ">u2"),
        np.frombuffer(np.array([2, 1, 0]).tobytes(), np.int64),
    ],
    ids=["reversed", "big-endian", "big-endian unsigned", "read-only"],
)
def test_an_index_may_be_any_array(index):
    batch = padless.Packed(torch.arange(6), [3, 1, 2])
    assert batch[index].data.tolist() == [4, 5, 3, 0, 1, 2]
    assert batch[np.array([True, False, True])[::-1]].data.tolist() == [0, 1, 2, 4, 5]
    assert batch[np.array([True, True, False])[::-1]].data.tolist() == [3, 4, 5]


@pytest.mark.parametrize("dtype", [torch.uint16, torch.uint32, torch.uint64])
def test_rows_of_unsigned_integers_move_like_others(dtype):
    rows = torch.tensor([1, 2, 3, 4, 5, torch.iinfo(torch.int16).max + 7])
    whole, batch = padless.Packed(rows, [3, 1, 2]), padless.Packed(rows.to(dtype), [3, 1, 2])
    for move in (
        lambda p: p[[2, 0]],
        lambda p: p[[0, 0]],
        lambda p: p[::-1],
        ops.reverse,
        lambda p: ops.roll(p, 1),
        lambda p: ops.shift(p, 1, fill=9),
        lambda p: ops.head(p, 2),
        lambda p: ops.tail(p, 2),
        lambda p: ops.chunks(p, 2)[0],
        lambda p: ops.cat([p, p]),
        lambda p: padless.Packed.from_packed_sequence(p.to_packed_sequence()),
    ):
        moved = move(batch)
        assert moved.dtype == dtype
        assert torch.equal(moved.data.long(), move(whole).data)
    for choose in (ops.first, ops.last, lambda p: ops.first(p, default=1), lambda p: p.pad(7)):
        assert torch.equal(choose(batch).long(), choose(whole))
    with_empty = padless.Packed(rows.to(dtype), [3, 0, 3])
    assert ops.last(with_empty, default=8).long().tolist() == [3, 8, int(rows[-1])]

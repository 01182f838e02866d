"""Operations that select, reorder, join and cut the rows of every sequence."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import accumulate, pairwise
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch._C._functorch import peek_interpreter_stack
from torch.nn.utils.rnn import PackedSequence

from ..errors import LayoutError, LengthsError
from ..layout.checks import whole_number
from ..layout.layout import Layout
from ..layout.rows import RowMap, is_mergeable, merge_rows, move_rows, split_rows, take_rows
from ..packed import Packed
from ..packed.padding import held_number
from ._kinds import Batch, as_packed, layout_of, of_kind, rows_in_order_of
from ._sums import sequence_rows

__all__ = [
    "cat", "chunks", "cut", "expand", "first", "head", "last", "reverse", "roll", "shift", "split", "tail",
]  # fmt: skip

_FAR = 2**62  # further than any sequence is long, but no sum with a row's number leaves int64


def first(packed: Batch, *, default: Any = None) -> Tensor:
    """First row of every sequence, `(B, *)`, in the caller's order.

    Args:
        packed: data `(N, *)`, any dtype.
        default: number or tensor `(*,)` for sequences of length 0.

    Raises:
        LengthsError: a sequence has length 0 and no default is given.
        LayoutError: the default has another shape.
        TypeError, RuntimeError: a default that the dtype cannot hold.

    >>> first(Packed(torch.tensor([1, 2, 3, 4]), [3, 0, 1]), default=-1)
    tensor([ 1, -1,  4])
    """
    batch = as_packed(packed, "first")
    return _one_each(batch, batch._layout.offsets[:-1], default, "first")


def last(packed: Batch, *, default: Any = None) -> Tensor:
    """Last row of every sequence, `(B, *)`, in the caller's order; arguments and errors as in `first`.

    >>> last(Packed(torch.tensor([1, 2, 3, 4]), [3, 1]))
    tensor([3, 4])
    """
    batch = as_packed(packed, "last")
    return _one_each(batch, batch._layout.offsets[1:] - 1, default, "last")


def reverse(packed: Batch) -> Batch:
    """Every sequence with its rows in reverse order.

    >>> reverse(Packed(torch.tensor([1, 2, 3, 4]), [3, 1])).data
    tensor([3, 2, 1, 4])
    """
    batch = as_packed(packed, "reverse")
    start, end, row = _places(batch)
    return of_kind(_selected(batch, start + end - 1 - row), packed)


def roll(packed: Batch, shift: int) -> Batch:
    """Every sequence with its rows moved `shift` steps later; rows moved past the end reappear at the start.

    >>> roll(Packed(torch.tensor([1, 2, 3, 4, 5]), [3, 2]), 1).data
    tensor([3, 1, 2, 5, 4])
    """
    batch, steps = as_packed(packed, "roll"), cast(Any, whole_number("roll: shift", shift))
    if abs(steps) > _FAR:  # whole turns change nothing
        rests = [steps % max(n, 1) for n in batch._layout.lengths.tolist()]
        steps = torch.tensor(rests, device="cpu")[batch._layout.owners]
    start, end, row = _places(batch)
    return of_kind(_selected(batch, start + (row - start - steps) % (end - start)), packed)


def shift(packed: Batch, n: int, fill: float = 0) -> Batch:
    """Every sequence with its rows moved `n` steps later (earlier if negative); rows without a source hold `fill`.

    Raises:
        TypeError, RuntimeError: a `fill` that the dtype cannot hold.

    >>> shift(Packed(torch.tensor([1, 2, 3, 4]), [3, 1]), 1, fill=-1).data
    tensor([-1,  1,  2, -1])
    """
    batch, steps = as_packed(packed, "shift"), whole_number("shift: n", n)
    fill = held_number("shift: fill", fill, batch.dtype)
    start, end, row = _places(batch)
    count = batch._layout.rows
    source = row - max(min(steps, _FAR), -_FAR)
    index = source.where((source >= start) & (source < end), count)
    rows = RowMap(index, None, count, count, has_fill=steps != 0, has_drop=steps != 0)
    return of_kind(Packed._of(move_rows(batch.data, rows, fill=fill), batch._layout), packed)


def head(packed: Batch, k: int) -> Batch:
    """The first `k` rows of every sequence, or all of a shorter one.

    Raises:
        ValueError: `k` is negative.

    >>> head(Packed(torch.tensor([1, 2, 3, 4]), [3, 1]), 2).unpack()
    [tensor([1, 2]), tensor([4])]
    """
    batch, count = as_packed(packed, "head"), _count(k, "head: k")
    return of_kind(_window(batch, 0, count), packed)


def tail(packed: Batch, k: int) -> Batch:
    """The last `k` rows of every sequence, or all of a shorter one.

    Raises:
        ValueError: `k` is negative.

    >>> tail(Packed(torch.tensor([1, 2, 3, 4]), [3, 1]), 2).unpack()
    [tensor([2, 3]), tensor([4])]
    """
    batch, count = as_packed(packed, "tail"), _count(k, "tail: k")
    lengths, count = batch._layout.lengths, _at_most(count, batch)
    return of_kind(_slices(batch, (lengths - count).clamp(min=0), lengths), packed)


def cat(batches: Iterable[Batch]) -> Batch:
    """Sequence i of each batch joined in time, in the order given.

    Args:
        batches: at least one, each with B sequences and rows of the same shape; the result has the kind of the first,
            and the dtype that `torch.cat` gives it.

    Raises:
        ValueError: no batches.
        LengthsError: batches with different numbers of sequences.
        LayoutError: rows of different shapes.

    >>> a, b = Packed(torch.tensor([1, 2, 3]), [2, 1]), Packed(torch.tensor([7, 8]), [0, 2])
    >>> cat([a, b]).unpack()
    [tensor([1, 2]), tensor([3, 7, 8])]
    """
    batches = list(batches)
    parts = [as_packed(batch, "cat") for batch in batches]
    if not parts:
        raise ValueError("cat needs at least one batch, got none")
    for i, part in enumerate(parts):
        if len(part) != len(parts[0]):
            raise LengthsError(f"cat: batch {i} has {len(part)} sequences, but batch 0 has {len(parts[0])}")
        shape, first = tuple(part.data.shape[1:]), tuple(parts[0].data.shape[1:])
        if shape != first:
            raise LayoutError(f"cat: batch {i} has rows of shape {shape}, but batch 0 has {first}")
    lengths = torch.stack([part._layout.lengths for part in parts], 1)  # (B, parts)
    joined, data = Layout(lengths.sum(1)), [part.data for part in parts]
    if is_mergeable(data):
        begins = (joined.offsets[:-1, None] + lengths.cumsum(1) - lengths).unbind(1)
        maps = [part._layout.placed(begin, joined.rows) for part, begin in zip(parts, begins, strict=True)]
        rows = merge_rows(data, maps)
    else:
        sizes = torch.tensor([part._layout.rows for part in parts], device="cpu")
        begins = torch.stack([part._layout.offsets[:-1] for part in parts], 1) + (sizes.cumsum(0) - sizes)
        at = Layout(lengths.reshape(-1)).ranges(begins.reshape(-1))
        rows = move_rows(torch.cat(data), RowMap.permutation(at, at.numel()))
    return of_kind(Packed._of(rows, joined), batches[0])


def split(packed: Batch, sizes: int | Sequence[int] | Tensor | NDArray[Any]) -> list[Batch]:
    """Every sequence cut at the same steps: a list of batches of B sequences, of length 0 once a sequence has ended.

    Args:
        packed: data `(N, *)`.
        sizes: steps of each piece; a single number cuts into pieces of that size (`chunks`).

    Raises:
        ValueError: a negative size.
        LengthsError: a sequence is longer than all pieces together.

    >>> [piece.unpack() for piece in split(Packed(torch.tensor([1, 2, 3, 4]), [3, 1]), [2, 1])]
    [[tensor([1, 2]), tensor([4])], [tensor([3]), tensor([], dtype=torch.int64)]]
    """
    if isinstance(sizes, (Tensor, np.ndarray)):
        sizes = sizes.tolist()
    if not isinstance(sizes, Sequence):
        return chunks(packed, cast(int, sizes))
    batch = as_packed(packed, "split")
    counts = [_count(size, f"split: sizes[{i}]") for i, size in enumerate(sizes)]
    total = sum(counts)
    if torch.compiler.is_compiling():
        torch.ops.aten._assert_async.msg(
            (batch._layout.lengths <= total).all(), f"split: sizes sum to {total}, and a sequence is longer"
        )
    elif batch._layout.steps > total:
        i = int(batch._layout.lengths.argmax())
        raise LengthsError(f"split: sizes sum to {total}, but lengths[{i}] = {batch._layout.steps}")
    return [of_kind(piece, packed) for piece in _windows(batch, list(accumulate(counts)))]


def chunks(packed: Batch, k: int) -> list[Batch]:
    """Windows of `k` steps of all B sequences, of length 0 once a sequence has ended; for truncated back-propagation.

    Raises:
        ValueError: `k` below 1.

    >>> [piece.lengths.tolist() for piece in chunks(Packed(torch.arange(6), [5, 1]), 2)]
    [[2, 1], [2, 0], [1, 0]]
    """
    batch, count = as_packed(packed, "chunks"), _count(k, "chunks: k")
    if count == 0:
        raise ValueError("chunks: k must be at least 1, got 0")
    steps = batch._layout.steps
    ends = range(count, steps + count, count)
    return [of_kind(piece, packed) for piece in _windows(batch, ends)]


def cut(packed: Batch, where: Any) -> tuple[Batch, Tensor]:
    """Every sequence cut before the rows where `where` is true: the pieces, and the sequence of each piece.

    Args:
        packed: data `(N, *)`.
        where: bool `(N,)`, a tensor, list or array in the order of `packed.data`, or a batch of the same kind and
            layout. The first row of a sequence always begins a piece. A sequence of length 0 has no piece.

    Returns:
        A batch of K pieces, sequence after sequence, and `owner (K,)` int64.

    Raises:
        LayoutError: `where` is not bool `(N,)`.
        LengthsError: `where` is a batch with other lengths.
        TypeError: `where` is a batch of the other kind.

    >>> pieces, owner = cut(Packed(torch.arange(5), [3, 2]), torch.tensor([False, True, False, False, True]))
    >>> pieces.unpack(), owner
    ([tensor([0]), tensor([1, 2]), tensor([3]), tensor([4])], tensor([0, 0, 1, 1]))
    """
    batch = as_packed(packed, "cut")
    if isinstance(where, (Packed, PackedSequence)):
        marks = rows_in_order_of(packed, where, "cut", ("batch", "where"))
    else:
        marks = torch.as_tensor(where) if isinstance(where, (list, tuple, np.ndarray)) else where
    if not isinstance(marks, Tensor) or marks.dtype != torch.bool or marks.shape != packed.data.shape[:1]:
        got = f"{marks.dtype} {tuple(marks.shape)}" if isinstance(marks, Tensor) else type(marks).__name__
        hint = ""
        if isinstance(marks, Tensor) and marks.dim() == 2:
            hint = "; a mask (T, B) becomes a batch by pack(where, lengths, batch_first=False)"
        raise LayoutError(f"cut: where must be bool (N,) = ({len(packed.data)},), got {got}{hint}")
    if isinstance(packed, PackedSequence):
        marks = as_packed(packed._replace(data=marks), "cut").data
    begins = marks.cpu().clone()  # synchronises if the mask is on a device: lengths are host values
    offsets, lengths = batch._layout.offsets, batch._layout.lengths
    begins[offsets[:-1][lengths > 0]] = True
    starts = begins.nonzero().squeeze(1)
    pieces = torch.diff(starts, append=torch.tensor([batch._layout.rows], device="cpu"))
    owner = batch._layout.owners[starts].to(batch.device)
    return of_kind(Packed._of(batch.data, Layout(pieces)), packed), owner


def expand(packed: Batch, values: Tensor) -> Batch:
    """`values[i]` as every row of sequence i: the kind and layout of `packed`.

    Args:
        packed: batch with the layout; its data are not read.
        values: `(B, *)`, on the data's device.

    Raises:
        LayoutError: `values` does not have B rows.

    >>> expand(Packed(torch.zeros(4), [3, 1]), torch.tensor([10, 20])).data
    tensor([10, 10, 10, 20])
    """
    layout = layout_of(packed, "expand")
    is_rows = isinstance(values, Tensor) and values.dim() > 0
    if is_rows and torch.compiler.is_compiling():  # both numbers may be unknown
        torch._check(values.shape[0] == layout.batch, lambda: "expand: values must have one row per sequence")
    elif not is_rows or len(values) != layout.batch:
        got = tuple(values.shape) if isinstance(values, Tensor) else type(values).__name__
        raise LayoutError(f"expand: values must be a tensor (B, *) with B = {layout.batch}, got {got}")
    return of_kind(Packed._of(sequence_rows(values, layout), layout), packed)


def _one_each(batch: Packed, at: Tensor, default: Any, name: str) -> Tensor:
    is_empty = batch._layout.lengths == 0
    if default is not None:
        row = _default_row(batch, default, name)
        if torch.compiler.is_compiling() or bool(is_empty.any()):
            at = at.masked_fill(is_empty, batch._layout.rows)
            return take_rows(torch.cat([batch.data, row]), at.to(batch.device))
    elif torch.compiler.is_compiling():
        torch.ops.aten._assert_async.msg(~is_empty.any(), f"{name}: a length is 0, and no default is given")
    elif bool(is_empty.any()):
        i = int(is_empty.nonzero()[0, 0])
        raise LengthsError(f"{name}: lengths[{i}] = 0, and no default is given")
    return take_rows(batch.data, at.to(batch.device))


def _default_row(batch: Packed, default: Any, name: str) -> Tensor:
    """The default as `(1, *)`, of the dtype and on the device of the rows."""
    shape, dtype = batch.data.shape[1:], batch.dtype
    if isinstance(default, (list, tuple, np.ndarray)):
        default = torch.as_tensor(default)
    if not isinstance(default, Tensor):
        default = held_number(f"{name}: default", default, dtype)
    elif default.dim() and default.shape != shape:
        raise LayoutError(
            f"{name}: default must be a number or have shape {tuple(shape)}, got {tuple(default.shape)}"
        )
    elif default.dtype != dtype and not torch.compiler.is_compiling() and peek_interpreter_stack() is None:
        for number in default.flatten().tolist():  # synchronises if the default is on a device
            held_number(f"{name}: default", number, dtype)
    return torch.as_tensor(default, dtype=dtype, device=batch.device).expand(1, *shape)


def _places(batch: Packed) -> tuple[Tensor, Tensor, Tensor]:
    """For every row: where its sequence starts and ends, and the row itself; `(N,)` each, on the host."""
    layout = batch._layout
    of_row = layout.owners
    return layout.offsets[of_row], layout.offsets[of_row + 1], torch.arange(layout.rows, device="cpu")


def _selected(batch: Packed, at: Tensor) -> Packed:
    """The batch whose row i is row `at[i]`; `at` is a permutation."""
    return Packed._of(move_rows(batch.data, RowMap.permutation(at, at.numel())), batch._layout)


def _window(batch: Packed, begin: int, end: int) -> Packed:
    """Steps `[begin, end)` of every sequence."""
    return _slices(batch, *_bounds(batch, begin, end))


def _windows(batch: Packed, ends: Sequence[int]) -> list[Packed]:
    """Every sequence cut before the steps `ends`, which ascend to T or beyond."""
    spans = list(pairwise([0, *ends]))
    if torch.compiler.is_compiling():
        return [_window(batch, begin, end) for begin, end in spans]
    layouts, rows = [], []
    for begin, end in spans:
        layout, at = _slice_rows(batch, *_bounds(batch, begin, end))
        layouts.append(layout)
        rows.append(at)
    if not rows:
        return []
    # One node for all windows: with one for each, backward would write N rows of gradient per window.
    at = RowMap.permutation(torch.cat(rows), batch._layout.rows)
    pieces = split_rows(batch.data, at, [layout.rows for layout in layouts])
    return [Packed._of(piece, layout) for piece, layout in zip(pieces, layouts, strict=True)]


def _bounds(batch: Packed, begin: int, end: int) -> tuple[Tensor, Tensor]:
    """Where steps `[begin, end)` of every sequence begin and end, `(B,)` each."""
    lengths = batch._layout.lengths
    return lengths.clamp(max=_at_most(begin, batch)), lengths.clamp(max=_at_most(end, batch))


def _at_most(count: int, batch: Packed) -> int:
    """The count, or T if the count is larger, so that it fits into a tensor."""
    return min(count, batch._layout.steps)


def _slices(batch: Packed, begin: Tensor, end: Tensor) -> Packed:
    """Rows `[begin[i], end[i])` of sequence i."""
    layout, at = _slice_rows(batch, begin, end)
    count = batch._layout.rows
    rows = RowMap(at, None, count, len(at), has_fill=False, has_drop=len(at) < count)
    return Packed._of(move_rows(batch.data, rows), layout)


def _slice_rows(batch: Packed, begin: Tensor, end: Tensor) -> tuple[Layout, Tensor]:
    """The layout of rows `[begin[i], end[i])` of sequence i, and those rows."""
    layout = Layout(end - begin)
    return layout, layout.ranges(batch._layout.offsets[:-1] + begin)


def _count(value: Any, name: str) -> int:
    count = whole_number(name, value)
    if count < 0:
        raise ValueError(f"{name} must not be negative, got {count}")
    return count

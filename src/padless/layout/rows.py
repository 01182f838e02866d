"""Moves rows between layouts, differentiable any number of times; independent of lengths."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .checks import as_numbers
from .walks import Walk, copy_rows, is_walkable, row_bytes

__all__ = [
    "RowMap", "cells_of", "index_dtype", "is_mergeable", "join_rows", "merge_rows", "move_rows", "split_rows",
    "take_rows",
]  # fmt: skip

_WORTH_WALKS = 64 << 10  # bytes of a part: for less, an index is faster than one more call of the library
_SIGNED = {torch.uint16: torch.int16, torch.uint32: torch.int32, torch.uint64: torch.int64}

# An index that is not computed yet is a recipe, or None if it follows from the other direction. Recipes return
# arrays, because a tensor created inside a transform cannot be used outside it.
Indices = Tensor | NDArray[np.signedinteger[Any]]
Lazy = Indices | Callable[[], Indices] | None


def index_dtype(count: int) -> type[np.signedinteger[Any]]:
    """The dtype for numbers from 0 to `count`: int32, which is faster to read, if it suffices."""
    if torch.compiler.is_compiling():  # the count may be unknown
        return np.int64
    return np.int32 if count < 2**31 else np.int64


class RowMap:
    """The source row, of N, of each of M target rows, and the inverse: int32 or int64, on the host.

    `index (M,)` holds the source row of each target row, or N if the target row is filled.
    `inverse (N,)` holds the target row of each source row, or M if it is dropped.
    No source row is used twice, so the inverse map is the exact adjoint. Each is computed when it is first
    read, from its own recipe or from the other one: without gradients one of them suffices, and on the CPU
    neither is needed if `walk` says where the rows of each sequence are.
    """

    __slots__ = ("_index", "_inverse", "_walk", "has_drop", "has_fill", "sources", "targets")

    def __init__(
        self,
        index: Lazy,
        inverse: Lazy,
        sources: int,
        targets: int,
        *,
        has_fill: bool,
        has_drop: bool,
        walk: Callable[[], Walk] | None = None,
    ) -> None:
        self._index = index
        self._inverse = inverse
        self.sources = sources  # N
        self.targets = targets  # M
        self.has_fill = has_fill  # some target row is filled
        self.has_drop = has_drop  # some source row is dropped
        self._walk: Callable[[], Walk] | Walk | None = walk

    @classmethod
    def permutation(
        cls, index: Indices | Callable[[], Indices], rows: int, walk: Callable[[], Walk] | None = None
    ) -> RowMap:
        """Target row i is source row index[i], for `rows` rows that are each used once; `index` may be a recipe."""
        return cls(index, None, rows, rows, has_fill=False, has_drop=False, walk=walk)

    @classmethod
    def placing(cls, inverse: Tensor, count: int) -> RowMap:
        """Source row i goes to target row inverse[i] of `count`; the others are filled."""
        rows = inverse.numel()
        return cls(None, inverse, rows, count, has_fill=rows < count, has_drop=False)

    @classmethod
    def padding(
        cls,
        index: Callable[[], Indices],
        inverse: Callable[[], Indices],
        rows: int,
        count: int,
        walk: Callable[[], Walk] | None = None,
    ) -> RowMap:
        """Each of `rows` source rows goes to one of `count` cells, by either recipe; the others are filled."""
        # A compiled program does not know the numbers, so it always appends the fill row.
        has_fill = torch.compiler.is_compiling() or rows < count
        return cls(index, inverse, rows, count, has_fill=has_fill, has_drop=False, walk=walk)

    @property
    def index(self) -> Tensor:
        """`(M,)` the source row of each target row."""
        return _as_tensor(self._known_index())

    @property
    def inverse(self) -> Tensor:
        """`(N,)` the target row of each source row."""
        return _as_tensor(self._known_inverse())

    def _known_index(self) -> Indices:
        if self._index is None:
            self._index = _way_back(self._known_inverse(), self.targets)
        elif callable(self._index):
            self._index = self._index()
        return self._index

    def _known_inverse(self) -> Indices:
        if self._inverse is None:
            self._inverse = _way_back(self._known_index(), self.sources)
        elif callable(self._inverse):
            self._inverse = self._inverse()
        return self._inverse

    @property
    def has_walk(self) -> bool:
        """Whether rows can be addressed by sequence and step."""
        return self._walk is not None

    @property
    def walk(self) -> Walk:
        """Where the rows of each sequence are; only if `has_walk`, and outside transforms."""
        if not isinstance(self._walk, Walk):
            assert self._walk is not None
            self._walk = self._walk()
        return self._walk

    def inverted(self) -> RowMap:
        """The inverse map; rows that this map drops are filled."""
        return RowMap(
            self._known_inverse,
            self._known_index,
            self.targets,
            self.sources,
            has_fill=self.has_drop,
            has_drop=self.has_fill,
            walk=self._walk and (lambda: self.walk.inverted()),
        )


def _as_tensor(rows: Indices) -> Tensor:
    return rows if isinstance(rows, Tensor) else torch.from_numpy(rows)


def _way_back(rows: Indices, count: int) -> Indices:
    """For each of `count` rows its position in `rows`, or the size of `rows` if it does not occur."""
    if isinstance(rows, Tensor) and torch.compiler.is_compiling():
        size = rows.shape[0]
        return rows.new_full((count + 1,), size).scatter(0, rows, torch.arange(size, device="cpu"))[:count]
    numbers = as_numbers(rows) if isinstance(rows, Tensor) else rows
    kind = index_dtype(numbers.size)
    places = np.full(count + 1, numbers.size, kind)  # one more entry, for those equal to `count`
    places[numbers] = np.arange(numbers.size, dtype=kind)
    return places[:count]


def move_rows(data: Tensor, rows: RowMap, *, fill: float | complex | bool = 0) -> Tensor:
    """Rows of `data (N, *)` in the target order, `(M, *)`: always a copy.

    Differentiable any number of times, on any device; filled rows pass no gradient.
    """
    if torch.compiler.is_compiling():
        # Dynamo cannot trace an autograd.Function with a forward-mode derivative.
        return _take(data, rows.index.to(data.device), rows.has_fill, fill)
    is_walked = rows.has_walk and is_walkable(data)
    if _needs_graph(data):
        if is_walked:
            return _WalkRows.apply(data, rows, fill)
        index, inverse = rows.index.to(data.device), rows.inverse.to(data.device)
        return _MoveRows.apply(data, index, inverse, rows.has_fill, rows.has_drop, fill)
    if is_walked:
        return _walked(data, rows, fill)
    if rows.has_fill and not rows.has_drop and _is_placed_faster(data):
        return _place(data, rows.inverse.to(data.device), rows.targets, fill)
    return _take(data, rows.index.to(data.device), rows.has_fill, fill)


def cells_of(grid: Tensor, batch_first: bool) -> tuple[Tensor, bool]:
    """The cells `(B * T, *)` of a padded batch, and whether they are ordered sequence by sequence.

    A transposed view is read in its original order, which avoids copying the padding.
    """
    if not grid.is_contiguous() and grid.transpose(0, 1).is_contiguous():
        grid, batch_first = grid.transpose(0, 1), not batch_first
    return grid.flatten(0, 1), batch_first


def split_rows(data: Tensor, rows: RowMap, sizes: list[int]) -> list[Tensor]:
    """Rows of `data (N, *)` in the target order, cut into pieces of `sizes` that share no memory.

    `rows` fills nothing, and `sizes` sum to its M. Differentiable like `move_rows`, in one node.
    """
    if not sizes:
        return []
    is_walked = rows.has_walk and is_walkable(data)
    if not _needs_graph(data):
        if is_walked:
            return list(_walked_pieces(data, rows, sizes))
        return list(_take_pieces(data, rows.index.to(data.device), sizes))
    if is_walked:
        return list(_WalkIntoPieces.apply(data, rows, sizes))
    index, inverse = rows.index.to(data.device), rows.inverse.to(data.device)
    return list(_SplitRows.apply(data, index, inverse, rows.has_drop, sizes))


def join_rows(pieces: Sequence[Tensor], rows: RowMap, *, fill: float | complex | bool = 0) -> Tensor:
    """`move_rows` of consecutive pieces, `(sizes[i], *)` each, without concatenating them first."""
    if torch.compiler.is_compiling() or not rows.has_walk or not is_walkable(*pieces):
        return move_rows(torch.cat(tuple(pieces)), rows, fill=fill)
    if torch.is_grad_enabled() and any(piece.requires_grad for piece in pieces):
        return _WalkOverPieces.apply(rows, fill, *pieces)
    return _walked_from_pieces(pieces, rows, fill)


def is_mergeable(parts: Sequence[Tensor]) -> bool:
    """Whether `merge_rows` takes these tensors, and is faster than an index into all of them."""
    first = parts[0]
    return (
        is_walkable(*parts)
        and all(part.dtype == first.dtype and part.shape[1:] == first.shape[1:] for part in parts)
        and sum(part.nbytes for part in parts) >= _WORTH_WALKS * len(parts)
    )


def merge_rows(parts: Sequence[Tensor], maps: Sequence[RowMap]) -> Tensor:
    """One tensor `(M, *)` with the rows of each part where its map puts them; together they are all M rows."""
    return _MergeRows.apply(list(maps), *parts)


def _needs_graph(data: Tensor) -> bool:
    return data.requires_grad and torch.is_grad_enabled()


def _walked(data: Tensor, rows: RowMap, fill: Any) -> Tensor:
    moved = data.new_empty(rows.targets, *data.shape[1:])
    copy_rows(rows.walk, data, moved, _fill_row(data, rows, fill))
    return moved


def _walked_pieces(data: Tensor, rows: RowMap, sizes: list[int]) -> tuple[Tensor, ...]:
    shape = data.shape[1:]
    pieces = tuple(data.new_empty(size, *shape) for size in sizes)
    copy_rows(rows.walk, data, pieces)
    return pieces


def _walked_from_pieces(pieces: Sequence[Tensor], rows: RowMap, fill: Any) -> Tensor:
    first = pieces[0]
    joined = first.new_empty(rows.targets, *first.shape[1:])
    copy_rows(rows.walk, pieces, joined, _fill_row(first, rows, fill))
    return joined


def _fill_row(data: Tensor, rows: RowMap, fill: Any) -> Tensor | None:
    return data.new_full(data.shape[1:], fill) if rows.has_fill else None


def _take(data: Tensor, index: Tensor, has_fill: bool, fill: Any) -> Tensor:
    if has_fill and _is_filled_faster(data):
        filled = (index == data.shape[0]).nonzero().squeeze(1)
        if 4 * filled.shape[0] <= index.shape[0]:
            return data.index_select(0, index.clamp(max=data.shape[0] - 1)).index_fill_(0, filled, fill)
    if has_fill:
        data = torch.cat([data, data.new_full((1, *data.shape[1:]), fill)])
    return take_rows(data, index)


def _is_filled_faster(data: Tensor) -> bool:
    """Whether filling rows afterwards is faster than a copy of the data with a row to fill from.

    200,000 rows of 512 bytes, shifted by one step, one thread: 179 and 225 ms with backward. For small or narrow rows
    the index takes more time than the copy.
    """
    return (
        is_walkable(data)
        and data.nbytes >= 1 << 20
        and row_bytes(data) >= 256
        and data.dtype in (torch.float32, torch.float64)
    )


def take_rows(data: Tensor, index: Tensor) -> Tensor:
    """`data.index_select(0, index)`, also of unsigned integers, which torch does not select."""
    signed = _SIGNED.get(data.dtype)
    if signed is None:
        return data.index_select(0, index)
    return data.view(signed).index_select(0, index).view(data.dtype)


def _take_pieces(data: Tensor, index: Tensor, sizes: list[int]) -> tuple[Tensor, ...]:
    return tuple(take_rows(data, piece) for piece in index.split(sizes))


def _place(data: Tensor, inverse: Tensor, count: int, fill: Any) -> Tensor:
    return data.new_full((count, *data.shape[1:]), fill).index_copy_(0, inverse.long(), data)


def _is_placed_faster(data: Tensor) -> bool:
    """Whether `_place` is faster than `_take`: it avoids copying the data, but writes filled rows first.

    5,309 rows into 12,736, one thread, `_place` and `_take` in us: 14 and 8 at 8 bytes per row, 145 and
    74 at 256, 779 and 777 at 1,024, 4,010 and 24,729 at 4,096, where the copy no longer fits the caches.
    """
    return row_bytes(data) >= 1024


# Walk nodes are for plain autograd. Transforms and forward-mode AD, which cannot walk, use the index nodes.
# Backward calls the functions above, so it can be differentiated again and accepts any kind of gradient.


class _WalkRows(torch.autograd.Function):
    """Moves rows by a walk; the gradient moves by the inverse walk."""

    @staticmethod
    def forward(ctx: Any, data: Tensor, rows: RowMap, fill: Any) -> Tensor:
        ctx.rows = rows
        return _walked(data, rows, fill)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        return move_rows(grads[0].contiguous(), ctx.rows.inverted()), None, None


class _WalkIntoPieces(torch.autograd.Function):
    """Moves rows into pieces by a walk; the gradients of all pieces move back together."""

    @staticmethod
    def forward(ctx: Any, data: Tensor, rows: RowMap, sizes: list[int]) -> tuple[Tensor, ...]:
        ctx.rows = rows
        return _walked_pieces(data, rows, sizes)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        return join_rows(grads, ctx.rows.inverted()), None, None


class _WalkOverPieces(torch.autograd.Function):
    """Moves rows of pieces by a walk; their gradients are pieces of one tensor, as with `torch.cat`."""

    @staticmethod
    def forward(ctx: Any, rows: RowMap, fill: Any, *pieces: Tensor) -> Tensor:
        ctx.rows, ctx.sizes = rows, [piece.shape[0] for piece in pieces]
        return _walked_from_pieces(pieces, rows, fill)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        rows = move_rows(grads[0].contiguous(), ctx.rows.inverted())
        return None, None, *rows.split(ctx.sizes)


class _MergeRows(torch.autograd.Function):
    """Writes every part by a walk of its own; the gradient of a part is read by the inverse walk."""

    @staticmethod
    def forward(ctx: Any, maps: list[RowMap], *parts: Tensor) -> Tensor:
        ctx.maps = maps
        merged = parts[0].new_empty(maps[0].targets, *parts[0].shape[1:])
        for rows, part in zip(maps, parts, strict=True):
            copy_rows(rows.walk, part, merged)
        return merged

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        grad = grads[0].contiguous()
        needed = zip(ctx.maps, ctx.needs_input_grad[1:], strict=True)
        return None, *(move_rows(grad, rows.inverted()) if is_needed else None for rows, is_needed in needed)


class _MoveRows(torch.autograd.Function):
    """Moves rows by an index; the gradient moves by its inverse.

    torch's gradient of index_select adds rows one by one into zeros.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(
        data: Tensor, index: Tensor, inverse: Tensor, has_fill: bool, has_drop: bool, fill: Any
    ) -> Tensor:
        if has_fill and not has_drop and _is_placed_faster(data):
            return _place(data, inverse, index.shape[0], fill)
        return _take(data, index, has_fill, fill)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        _, index, inverse, ctx.has_fill, ctx.has_drop, _ = inputs
        ctx.save_for_backward(index, inverse)
        ctx.save_for_forward(index, inverse)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        index, inverse = ctx.saved_tensors
        moved = _MoveRows.apply(grads[0], inverse, index, ctx.has_drop, ctx.has_fill, 0)
        return moved, None, None, None, None, None

    @staticmethod
    def jvp(ctx: Any, *tangents: Tensor) -> Tensor:
        index, inverse = ctx.saved_tensors
        return _MoveRows.apply(tangents[0], index, inverse, ctx.has_fill, ctx.has_drop, 0)


class _SplitRows(torch.autograd.Function):
    """Moves rows into pieces by an index; the gradients of all pieces move back together.

    Autograd would free saved indices after the first backward, but pieces may be differentiated one by one, like those
    of `torch.split`.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(
        data: Tensor, index: Tensor, inverse: Tensor, has_drop: bool, sizes: list[int]
    ) -> tuple[Tensor, ...]:
        return _take_pieces(data, index, sizes)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        _, ctx.index, ctx.inverse, ctx.has_drop, ctx.sizes = inputs

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        moved = _MoveRows.apply(torch.cat(grads), ctx.inverse, ctx.index, ctx.has_drop, False, 0)
        return moved, None, None, None, None

    @staticmethod
    def jvp(ctx: Any, *tangents: Tensor) -> tuple[Tensor, ...]:
        return _take_pieces(tangents[0], ctx.index, ctx.sizes)

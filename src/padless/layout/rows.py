"""Moves rows between layouts, differentiable any number of times; knows no lengths."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .checks import as_numbers

__all__ = ["RowMap", "index_dtype", "move_rows", "split_rows"]

# What is not worked out yet is a recipe, or nothing where it is to follow from the other direction.
Lazy = Tensor | Callable[[], Tensor] | None


def index_dtype(count: int) -> type[np.signedinteger[Any]]:
    """The dtype of numbers from 0 to `count`: int32 where it suffices, which is read in less time."""
    if torch.compiler.is_compiling():  # where the count may be unknown
        return np.int64
    return np.int32 if count < 2**31 else np.int64


class RowMap:
    """Which of N source rows each of M target rows takes, and the way back: int32 or int64, on the host.

    `index (M,)` holds, for each target row, a source row, or N where the target row is filled.
    `inverse (N,)` holds, for each source row, its target row, or M where it is dropped.
    No source row is taken twice, so the way back is the exact adjoint. Each is worked out when it is first
    asked for, from its own recipe or from the other: without gradients one of them is enough.
    """

    __slots__ = ("_index", "_inverse", "has_drop", "has_fill", "sources", "targets")

    def __init__(
        self,
        index: Lazy,
        inverse: Lazy,
        sources: int,
        targets: int,
        *,
        has_fill: bool,
        has_drop: bool,
    ) -> None:
        self._index = index
        self._inverse = inverse
        self.sources = sources  # N
        self.targets = targets  # M
        self.has_fill = has_fill  # some target row is filled
        self.has_drop = has_drop  # some source row is dropped

    @classmethod
    def permutation(cls, index: Tensor) -> RowMap:
        """Target row i takes source row index[i]; every row is taken once."""
        rows = index.numel()
        return cls(index, None, rows, rows, has_fill=False, has_drop=False)

    @classmethod
    def placing(cls, inverse: Tensor, count: int) -> RowMap:
        """Source row i goes to target row inverse[i] of `count`; the others are filled."""
        rows = inverse.numel()
        return cls(None, inverse, rows, count, has_fill=rows < count, has_drop=False)

    @classmethod
    def padding(
        cls, index: Callable[[], Tensor], inverse: Callable[[], Tensor], rows: int, count: int
    ) -> RowMap:
        """Each of `rows` source rows goes to one of `count` cells, by either recipe; the others are filled."""
        # A compiled program does not know the numbers; it always appends the row that fills.
        has_fill = torch.compiler.is_compiling() or rows < count
        return cls(index, inverse, rows, count, has_fill=has_fill, has_drop=False)

    @property
    def index(self) -> Tensor:
        """`(M,)` the source row of each target row."""
        if not isinstance(self._index, Tensor):
            self._index = self._index() if self._index else _way_back(self.inverse, self.targets)
        return self._index

    @property
    def inverse(self) -> Tensor:
        """`(N,)` the target row of each source row."""
        if not isinstance(self._inverse, Tensor):
            self._inverse = self._inverse() if self._inverse else _way_back(self.index, self.sources)
        return self._inverse

    def inverted(self) -> RowMap:
        """The map back; rows that this one dropped come back filled."""
        return RowMap(
            self._inverse,
            self._index,
            self.targets,
            self.sources,
            has_fill=self.has_drop,
            has_drop=self.has_fill,
        )

    def then(self, other: RowMap) -> RowMap:
        """First this map, then `other`, as one."""
        return RowMap(
            _follow(other.index, self.index, self.sources),
            _follow(self.inverse, other.inverse, other.targets),
            self.sources,
            other.targets,
            has_fill=self.has_fill or other.has_fill,
            has_drop=self.has_drop or other.has_drop,
        )


def _way_back(rows: Tensor, count: int) -> Tensor:
    """For each of `count` rows the place in `rows` that names it, or their number where none does."""
    kind = index_dtype(rows.numel())
    places = np.full(count + 1, rows.numel(), kind)  # one place more for those that name none
    places[as_numbers(rows)] = np.arange(rows.numel(), dtype=kind)
    return torch.from_numpy(places[:count])


def _follow(first: Tensor, second: Tensor, missing: int) -> Tensor:
    """second[first], where an entry of `first` past the end of `second` stays missing."""
    return torch.cat([second, second.new_tensor([missing])]).index_select(0, first)


def move_rows(data: Tensor, rows: RowMap, *, fill: float | complex | bool = 0) -> Tensor:
    """Rows of `data (N, *)` in the target order, `(M, *)`: always a copy.

    Differentiable any number of times, on any device; a filled row passes no gradient.
    """
    device = data.device
    if (
        torch.compiler.is_compiling()
    ):  # Dynamo traces no autograd.Function that has a derivative in forward mode
        return _take(data, rows.index.to(device), rows.has_fill, fill)
    if _needs_graph(data):
        index, inverse = rows.index.to(device), rows.inverse.to(device)
        return _MoveRows.apply(data, index, inverse, rows.has_fill, rows.has_drop, fill)
    if rows.has_fill and not rows.has_drop and _is_placed_faster(data):
        return _place(data, rows.inverse.to(device), rows.targets, fill)
    return _take(data, rows.index.to(device), rows.has_fill, fill)


def split_rows(data: Tensor, rows: RowMap, sizes: list[int]) -> list[Tensor]:
    """Rows of `data (N, *)` in the target order, cut into pieces of `sizes` that share no memory.

    `rows` fills nothing, and `sizes` sum to its M. Differentiable as `move_rows` is, in one node.
    """
    if not sizes:
        return []
    index = rows.index.to(data.device)
    if not _needs_graph(data):
        return list(_take_pieces(data, index, sizes))
    return list(_SplitRows.apply(data, index, rows.inverse.to(data.device), rows.has_drop, sizes))


def _needs_graph(data: Tensor) -> bool:
    return data.requires_grad and torch.is_grad_enabled()


def _take(data: Tensor, index: Tensor, has_fill: bool, fill: Any) -> Tensor:
    if has_fill:
        data = torch.cat([data, data.new_full((1, *data.shape[1:]), fill)])
    return data.index_select(0, index)


def _take_pieces(data: Tensor, index: Tensor, sizes: list[int]) -> tuple[Tensor, ...]:
    return tuple(data.index_select(0, piece) for piece in index.split(sizes))


def _place(data: Tensor, inverse: Tensor, count: int, fill: Any) -> Tensor:
    return data.new_full((count, *data.shape[1:]), fill).index_copy_(0, inverse.long(), data)


def _is_placed_faster(data: Tensor) -> bool:
    """Whether `_place` beats `_take`: it spares the copy of the data, but writes filled rows first.

    5,309 rows into 12,736, one thread, `_place` against `_take` in us: 14 and 8 at 8 bytes a row, 145 and
    74 at 256, 779 and 777 at 1,024, 4,010 and 24,729 at 4,096, where the copy no longer fits the caches.
    """
    return data.element_size() * math.prod(data.shape[1:]) >= 1024


class _MoveRows(torch.autograd.Function):
    """Rows by the map, whose gradient is rows by the inverse.

    torch's own gradient of index_select adds rows one by one into zeros.
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
    """Pieces of rows by the map; the gradients of all pieces go back as one move of rows."""

    generate_vmap_rule = True

    @staticmethod
    def forward(
        data: Tensor, index: Tensor, inverse: Tensor, has_drop: bool, sizes: list[int]
    ) -> tuple[Tensor, ...]:
        return _take_pieces(data, index, sizes)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        _, index, inverse, ctx.has_drop, ctx.sizes = inputs
        ctx.save_for_backward(index, inverse)
        ctx.save_for_forward(index, inverse)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        index, inverse = ctx.saved_tensors
        moved = _MoveRows.apply(torch.cat(grads), inverse, index, ctx.has_drop, False, 0)
        return moved, None, None, None, None

    @staticmethod
    def jvp(ctx: Any, *tangents: Tensor) -> tuple[Tensor, ...]:
        index, _ = ctx.saved_tensors
        return _take_pieces(tangents[0], index, ctx.sizes)

"""The tensor of bytes that a layer saves for backward in a compiled program: a header, then cells and gates.

The number of rows and the precision of float32 layers, which decides the dtype of their gates, are known only when the
program runs. A tensor of bytes fits all cases, and backward reads the precision of its forward from the header.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor

from . import _kernels
from .contract import Layer, Precision

__all__ = ["KEEPS", "new_saved", "opened", "saved_size", "zero_unused"]

KEEPS = ("nothing", "cells", "gates")  # backward recomputes all of forward; gates; nothing
_PRECISIONS = tuple(_kernels.PRECISIONS)  # their order is part of the format
_HEADER = 64  # bytes: precision, what is kept, zeros; keeps the data behind it aligned like any tensor


class _Part(NamedTuple):
    """One of the saved matrices; it has one row for each row of the batch."""

    width: int
    dtype: torch.dtype

    @property
    def row_bytes(self) -> int:
        return self.width * self.dtype.itemsize


@lru_cache(maxsize=256)  # used in every call; the result depends on nothing else
def _parts(
    cell: str, dtype: torch.dtype, hidden: int, keep: str, precision: Precision
) -> tuple[_Part, _Part]:
    """Cells and gates for rows of this dtype, in the dtypes that `native.forward` uses."""
    wide = _kernels.wide_dtype(dtype)
    cells = _kernels.cells_width(cell, hidden) if keep != "nothing" else 0
    gates = _kernels.saved_width(cell, hidden) if keep == "gates" else 0
    return _Part(cells, wide), _Part(gates, _kernels.gates_dtype(dtype, precision))


def _size(parts: tuple[_Part, _Part], rows: Any) -> Any:
    row_bytes = sum(part.row_bytes for part in parts)
    return _HEADER + rows * row_bytes if row_bytes else _HEADER


def saved_size(cell: str, rows: Tensor, hidden: int, keep: str) -> Any:
    """Number of bytes that suffices for `rows` `(M, I)` in every precision; M may be symbolic.

    Args:
        keep: one of `KEEPS`.
    """
    # Gates of float32 rows are widest with float32 products. H is a number: a symbolic one becomes a constant.
    return _size(_parts(cell, rows.dtype, int(hidden), keep, "highest"), rows.shape[0])


def _header(precision: Precision, keep: str) -> Tensor:
    """A header, created once; do not write to it."""
    found = _headers.get((precision, keep))
    if found is None:
        found = torch.zeros(_HEADER, dtype=torch.uint8, device="cpu")
        found[0], found[1] = _PRECISIONS.index(precision), KEEPS.index(keep)
        _headers[precision, keep] = found
    return found


_headers: dict[tuple[str, str], Tensor] = {}


def new_saved(
    layer: Layer, keep: str, *, exact: bool, is_native: bool
) -> tuple[Tensor, tuple[Tensor, Tensor] | None]:
    """New tensor of bytes, and views of its gates and cells `(N, width)` for the kernels to write, or None.

    Args:
        layer: with the precision in which it will be computed.
        keep: one of `KEEPS`.
        exact: whether the size is that of the N rows of the batch; otherwise it is `saved_size`, padded with zeros.
        is_native: whether the kernels compute the layer; otherwise nothing is kept, but the size is the same.
    """
    if keep == "nothing" or (exact and not is_native):
        return _header(layer.precision, "nothing").clone(), None
    hidden, count = layer.weights.hidden, layer.schedule.rows
    if not is_native:
        return torch.zeros(
            saved_size(layer.cell, layer.rows, hidden, keep), dtype=torch.uint8, device="cpu"
        ), None
    parts = _parts(layer.cell, layer.rows.dtype, hidden, keep, layer.precision)
    used = _size(parts, count)
    size = used if exact else saved_size(layer.cell, layer.rows, hidden, keep)
    saved = _kernels.prefer_large_pages(torch.empty(size, dtype=torch.uint8, device="cpu"))
    saved[:_HEADER] = _header(layer.precision, keep)
    if used < size:
        saved[used:] = 0
    return saved, _gates_and_cells(saved, parts, count)


def _gates_and_cells(saved: Tensor, parts: tuple[_Part, _Part], rows: int) -> tuple[Tensor, Tensor]:
    found, begin = [], _HEADER
    for part in parts:
        end = begin + rows * part.row_bytes
        found.append(saved[begin:end].view(part.dtype).view(rows, part.width))
        begin = end
    cells, gates = found
    return gates, cells


def zero_unused(matrices: tuple[Tensor, Tensor], hidden: int) -> None:
    """Zero the unused columns past `hidden` of each gate, so that equal calls have equal results."""
    padded = -(-hidden // 16) * 16
    for matrix in matrices:
        if matrix.numel() and padded > hidden:
            matrix.view(len(matrix), -1, padded)[:, :, hidden:].zero_()


def opened(saved: Tensor, layer: Layer) -> tuple[Layer, tuple[Tensor, Tensor] | None]:
    """The layer with the precision of its forward; gates and cells `(N, width)`, or None if nothing was kept.

    Raises:
        RuntimeError: the bytes do not belong to such a layer.
    """
    if saved.dtype != torch.uint8 or saved.dim() != 1 or len(saved) < _HEADER or saved.device.type != "cpu":
        raise RuntimeError(f"saved must be bytes (n,) on the CPU, got {saved.dtype} {tuple(saved.shape)}")
    saved = saved.contiguous()
    first, second = saved[:2].tolist()
    is_known = first < len(_PRECISIONS) and second < len(KEEPS)
    if not is_known or not _is_computed(_PRECISIONS[first], layer.rows.dtype):
        raise RuntimeError(f"saved does not begin with a precision of {layer.rows.dtype} and what is kept")
    precision, keep = _PRECISIONS[first], KEEPS[second]
    layer = layer._replace(precision=precision)
    if keep == "nothing":
        return layer, None
    count = layer.schedule.rows
    parts = _parts(layer.cell, layer.rows.dtype, layer.weights.hidden, keep, precision)
    if len(saved) < _size(parts, count):
        raise RuntimeError(f"saved must have {_size(parts, count)} bytes for {count} rows, got {len(saved)}")
    return layer, _gates_and_cells(saved, parts, count)


def _is_computed(precision: Precision, dtype: torch.dtype) -> bool:
    """Whether layers of this dtype can be computed in this precision here, whatever torch's setting is."""
    if precision == "highest":
        return True
    known = {torch.float32: ("high", "medium"), torch.bfloat16: ("medium",)}
    return precision in known.get(dtype, ()) and _kernels.missing() is None and _kernels.computes(precision)

"""The padded tensor of a `Packed`, and the mask of its rows."""

from __future__ import annotations

import operator

import torch
from torch import Tensor

from ..layout.checks import checked_fill
from ..layout.layout import Layout
from ..layout.rows import move_rows

__all__ = ["pad_rows", "row_mask"]


def pad_rows(
    data: Tensor, layout: Layout, value: float, total_length: int | None, side: str, batch_first: bool
) -> Tensor:
    """Return the padded tensor `(B, T, *)` or `(T, B, *)` of rows `(N, *)`; options as in `Packed.pad`."""
    steps = _total_length(layout, total_length)
    if not torch.compiler.is_compiling():
        value = checked_fill("pad", data, value)
        if data.dtype == torch.uint8 and value < 0:  # torch would wrap around
            raise RuntimeError(f"pad: padding_value = {value} cannot be held by {data.dtype}")
    cells = layout.padded(steps, batch_first=batch_first, left=_is_left(side))
    grid = (layout.batch, steps) if batch_first else (steps, layout.batch)
    return move_rows(data, cells, fill=value).reshape(*grid, *data.shape[1:])


def row_mask(data: Tensor, layout: Layout, total_length: int | None, side: str, batch_first: bool) -> Tensor:
    """Return bool `(B, T)` or `(T, B)`, on the data's device: which cells of the padded tensor hold a row."""
    steps = _total_length(layout, total_length)
    step = torch.arange(steps, device=data.device)
    if _is_left(side):
        step = steps - 1 - step
    lengths = layout.lengths.to(data.device)
    return step < lengths[:, None] if batch_first else step[:, None] < lengths


def _total_length(layout: Layout, total_length: int | None) -> int:
    if total_length is None:
        return layout.steps
    if torch.compiler.is_compiling():
        torch._check(layout.steps <= total_length, lambda: "total_length is less than the longest length")
        return total_length
    try:
        total_length = operator.index(total_length)
    except TypeError:
        raise TypeError(f"total_length must be a whole number, got {type(total_length).__name__}") from None
    if total_length < layout.steps:
        raise ValueError(
            f"Expected total_length to be at least the length of the longest sequence in input, "
            f"but got total_length={total_length} and max sequence length being {layout.steps}"
        )
    return total_length


def _is_left(side: str) -> bool:
    if side not in ("left", "right"):
        raise ValueError(f"side must be 'left' or 'right', got {side!r}")
    return side == "left"

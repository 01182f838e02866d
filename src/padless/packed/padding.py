"""The padded tensor of a `Packed`, and the mask of its rows."""

from __future__ import annotations

from math import inf, isfinite
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from ..layout.checks import checked_total_length
from ..layout.layout import Layout
from ..layout.rows import move_rows

__all__ = ["held_number", "pad_rows", "row_mask"]


def pad_rows(
    data: Tensor, layout: Layout, value: float, total_length: int | None, side: str, batch_first: bool
) -> Tensor:
    """Return the padded tensor `(B, T, *)` or `(T, B, *)` of rows `(N, *)`; options as in `Packed.pad`."""
    steps = _total_length(layout, total_length)
    value = held_number("pad: value", value, data.dtype)
    cells = layout.padded(steps, batch_first=batch_first, left=_is_left(side))
    grid = (layout.batch, steps) if batch_first else (steps, layout.batch)
    return move_rows(data, cells, fill=value).reshape(*grid, *data.shape[1:])


def held_number(name: str, value: Any, dtype: torch.dtype) -> Any:
    """`value` as a Python number that `dtype` holds, if necessary rounded, but not truncated; unchecked in a graph.

    Raises:
        TypeError: not a number, or one with a fraction or imaginary part that the dtype does not have.
        RuntimeError: a number outside the dtype's range, which torch would wrap around or make infinite.
    """
    if torch.compiler.is_compiling():
        return value
    given = value.item() if isinstance(value, (Tensor, np.generic)) and value.ndim == 0 else value
    if not isinstance(given, (bool, int, float, complex)):
        raise TypeError(f"{name} must be a number, got {type(value).__name__}")
    is_whole = not (dtype.is_floating_point or dtype.is_complex)
    has_fraction = isinstance(given, float) and isfinite(given) and not given.is_integer()
    if (isinstance(given, complex) and not dtype.is_complex) or (is_whole and has_fraction):
        raise TypeError(f"{name} = {given} cannot be held by {dtype}")
    number = cast(Any, given)
    if is_whole:
        low, high = (0, 1) if dtype == torch.bool else (torch.iinfo(dtype).min, torch.iinfo(dtype).max)
        is_in_range = low <= number <= high
    else:
        largest = torch.finfo(dtype).max
        is_in_range = not any(largest < abs(part) < inf for part in (number.real, number.imag))
    if not is_in_range:
        raise RuntimeError(f"{name} = {number} cannot be held by {dtype}")
    return int(number) if is_whole else complex(number) if dtype.is_complex else float(number)


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
    return checked_total_length("total_length", total_length, layout.steps)


def _is_left(side: str) -> bool:
    if side not in ("left", "right"):
        raise ValueError(f"side must be 'left' or 'right', got {side!r}")
    return side == "left"

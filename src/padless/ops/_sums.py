"""Sums of every sequence's rows, and their adjoint; long sequences are summed in blocks."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ..layout.layout import Layout, Numbers

__all__ = [
    "check_floating", "double", "lengths_on", "owners_on", "row_sums", "sequence_rows", "sum_dtype", "wide",
]  # fmt: skip

_NARROW = (torch.bfloat16, torch.float16)

# One float32 accumulator is wrong by 1 % after a million rows. Sequences of more than 128 rows are summed in blocks
# of 64, and their blocks in the same way, which is as fast and as exact as torch. It depends on the sequence's length
# alone, so that a sequence has the same sum in any batch.
_LONG, _BLOCK = 128, 64


def row_sums(data: Tensor, layout: Layout) -> Tensor:
    """Sums `(B, *)` of the rows `(N, *)` of every sequence, in float32 or wider; int64 for integers."""
    rows = wide(data)
    if not rows.is_floating_point() and not rows.is_complex():
        rows = rows.long()
    if torch.compiler.is_compiling():  # a graph cannot branch on lengths
        doubles = double(rows)
        sums = doubles.new_zeros(layout.batch, *rows.shape[1:])
        return sums.index_add(0, layout.owners.to(rows.device), doubles).to(rows.dtype)
    for owners, count in layout.on(rows.device, _levels):
        rows = rows.new_zeros(count, *rows.shape[1:]).index_add(0, owners, rows)
    return rows


def sequence_rows(values: Tensor, layout: Layout) -> Tensor:
    """`values[i]` of `(B, *)` as every row of sequence i, `(N, *)`; the gradient is a `row_sums`."""
    if torch.compiler.is_compiling():
        return double(values).index_select(0, layout.owners.to(values.device)).to(values.dtype)
    rows = wide(values) if values.requires_grad and torch.is_grad_enabled() else values
    for owners, _ in reversed(layout.on(rows.device, _levels)):
        rows = rows.index_select(0, owners)
    return rows.to(values.dtype)


def sum_dtype(dtype: torch.dtype) -> torch.dtype:
    """The dtype of sums of such rows: int64 for integers and booleans."""
    return dtype if dtype.is_floating_point or dtype.is_complex else torch.int64


def check_floating(data: Tensor, name: str, *, allow_complex: bool = False) -> None:
    """Raise TypeError unless the data are floating-point, or complex if that is allowed."""
    if not data.is_floating_point() and not (allow_complex and data.is_complex()):
        raise TypeError(f"{name} takes floating-point data, got {data.dtype}")


def wide(rows: Tensor) -> Tensor:
    """The rows in float32 if they are bfloat16 or float16."""
    return rows.float() if rows.dtype in _NARROW else rows


def double(rows: Tensor) -> Tensor:
    """The rows in double precision if they are not whole numbers and the device has it."""
    if rows.device.type == "mps":
        return wide(rows)
    if rows.is_complex():
        return rows.to(torch.complex128)
    return rows.double() if rows.is_floating_point() else rows


def owners_on(layout: Layout, device: torch.device) -> Tensor:
    """`(N,)` the sequence of each back-to-back row, on the device."""
    return layout.on(device, _owners)


def lengths_on(layout: Layout, device: torch.device) -> Tensor:
    """The lengths `(B,)` on the device; not to be changed."""
    return layout.on(device, _lengths)


def _owners(layout: Layout, device: torch.device) -> Tensor:
    return layout.owners.to(device)


def _lengths(layout: Layout, device: torch.device) -> Tensor:
    return layout.lengths.to(device)


def _levels(layout: Layout, device: torch.device) -> list[tuple[Tensor, int]]:
    """The steps of a sum: the block of each row and the number of blocks, and so on up to the sequences."""
    if layout.steps <= _LONG:
        return [(owners_on(layout, device), layout.batch)]
    blocks, counts = _blocks(layout._lengths)
    owners = Layout(torch.from_numpy(blocks)).owners.to(device)
    return [(owners, len(blocks)), *_levels(Layout(torch.from_numpy(counts)), device)]


def _blocks(lengths: Numbers) -> tuple[Numbers, Numbers]:
    """The length of each block, and the number of blocks of each sequence.

    A sequence of up to `_LONG` rows is one block, and one of length 0 has none.
    """
    counts = np.where(lengths > _LONG, -(-lengths // _BLOCK), np.minimum(lengths, 1))
    owners = np.arange(len(lengths)).repeat(counts)
    place = np.arange(len(owners)) - (counts.cumsum() - counts)[owners]
    of_sequence = lengths[owners]
    blocks = np.where(of_sequence > _LONG, np.minimum(of_sequence - place * _BLOCK, _BLOCK), of_sequence)
    return blocks, counts

"""Conversions between layouts and torch's `PackedSequence`, which is checked, since users can construct it directly."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

from ..errors import LayoutError
from ..layout.checks import checked_slots
from ..layout.layout import Layout
from ..layout.operators import slot_lengths
from ..layout.rows import move_rows
from ..layout.walks import lengths_of_slots

__all__ = ["layout_of_packed_sequence", "packed_sequence_of_rows"]


def layout_of_packed_sequence(sequence: PackedSequence) -> Layout:
    """Layout of a `PackedSequence`: lengths in the caller's order, slots according to its indices.

    `layout.time_major` therefore moves back-to-back rows to exactly the order of `sequence.data`, and
    `layout.time_major.inverted()` moves them back, however ties were broken.

    Args:
        sequence: created by torch, by padless or directly; everything in it except `data` is checked.
            Sequences of length 0 are the entries of the indices beyond `batch_sizes[0]`.

    Raises:
        LayoutError: invalid `batch_sizes`, `sorted_indices` or `unsorted_indices`.

    >>> data = torch.tensor([4, 1, 5, 2, 6])
    >>> sequence = PackedSequence(data, torch.tensor([2, 2, 1]), torch.tensor([2, 0, 1]))
    >>> layout = layout_of_packed_sequence(sequence)  # [1, 2], [] and [4, 5, 6]
    >>> layout.lengths, layout.order
    (tensor([2, 0, 3]), tensor([2, 0, 1]))
    """
    data, batch_sizes, sorted_indices, unsorted_indices = sequence
    if not isinstance(data, Tensor) or data.dim() == 0:
        kind = "a scalar" if isinstance(data, Tensor) else type(data).__name__
        raise LayoutError(f"data of a PackedSequence must be a tensor (N, *), got {kind}")
    rows = data.shape[0]
    lengths = lengths_of_slots(batch_sizes, sorted_indices, unsorted_indices, rows=rows)
    if lengths is not None:  # all valid
        if sorted_indices is None or unsorted_indices is None:
            sorted_indices = unsorted_indices = torch.arange(lengths.shape[0], device="cpu")
        return Layout.of_slots(lengths, batch_sizes, sorted_indices, unsorted_indices, rows=rows)
    if torch.compiler.is_compiling():
        lengths, order, slots = slot_lengths(batch_sizes, sorted_indices, unsorted_indices, rows)
        return Layout.of_slots(lengths, batch_sizes, order, slots, rows=rows)
    order, slots = checked_slots(batch_sizes, sorted_indices, unsorted_indices, rows=rows)
    return Layout.of_batch_sizes(batch_sizes, order, slots, rows=rows)


def packed_sequence_of_rows(data: Tensor, layout: Layout) -> PackedSequence:
    """Return back-to-back rows `(N, *)` as a `PackedSequence`, longest first: a copy."""
    order = layout.order
    unsorted = torch.empty_like(order)
    unsorted[order] = torch.arange(len(order), device="cpu")
    return PackedSequence(
        move_rows(data, layout.time_major),
        layout.batch_sizes.clone(),
        order.to(data.device, copy=True),
        unsorted.to(data.device),
    )

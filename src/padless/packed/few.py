"""A `PackedSequence` of few sequences, made and padded by torch's own operators.

For up to `FEW` sequences and without gradients those are faster than a walk over the rows, whose set-up is then most of
the work (benchmarks/packing.py). Arguments have been checked.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

from ..layout.walks import lengths_of_slots

__all__ = ["FEW", "are_few", "pack_few", "pad_few"]

FEW = 8

_pack = torch._VF._pack_padded_sequence  # type: ignore[attr-defined]
_pad = torch._VF._pad_packed_sequence  # type: ignore[attr-defined]


def are_few(count: int, *given: Any) -> bool:
    """Whether `count` sequences in the tensors `given` are packed and padded by torch's own operators."""
    return (
        0 < count <= FEW
        and all(type(tensor) is Tensor and tensor.is_cpu for tensor in given)
        and not (torch.is_grad_enabled() and any(tensor.requires_grad for tensor in given))
        and not torch.compiler.is_compiling()
    )


def pack_few(
    padded: Tensor, lengths: Tensor, *, batch_first: bool, enforce_sorted: bool
) -> PackedSequence | None:
    """The `PackedSequence` of the first `lengths[b]` steps of each sequence, or None if it has to be made otherwise.

    Args:
        padded: `(B, T, *)` with `batch_first`, else `(T, B, *)`.
        lengths: `(B,)`, int64 on the CPU, at most T.
        enforce_sorted: whether the sequences are to be in order already; no indices are stored then.
    """
    numbers = lengths.tolist()
    if 0 in numbers:  # torch's operator knows no sequence of length 0
        return None
    if enforce_sorted:
        if any(a < b for a, b in pairwise(numbers)):
            return None
        return PackedSequence(*_pack(padded, lengths, batch_first))
    lengths, order = torch.sort(lengths, descending=True)
    in_order = order.tolist()
    slots = [0] * len(in_order)
    for slot, sequence in enumerate(in_order):
        slots[sequence] = slot
    rows = padded.index_select(0 if batch_first else 1, order)
    return PackedSequence(*_pack(rows, lengths, batch_first), order, torch.tensor(slots, device="cpu"))


def pad_few(
    sequence: PackedSequence, *, batch_first: bool, fill: Any, total_length: Any
) -> tuple[Tensor, Tensor] | None:
    """The padded batch in the caller's order and its lengths, or None if they have to be found, or refused, otherwise.

    Args:
        sequence: not checked yet.
        fill: what the cells without a row hold.
        total_length: T; None for the longest length.
    """
    data, batch_sizes, order, slots = sequence
    count = len(slots) if isinstance(slots, Tensor) and slots.dim() == 1 else 1
    if not are_few(count, data) or (total_length is not None and type(total_length) is not int):
        return None
    lengths = lengths_of_slots(batch_sizes, order, slots, rows=len(data))
    steps = batch_sizes.shape[0] if total_length is None else total_length
    if lengths is None or len(lengths) > FEW or not all(lengths.tolist()) or steps < batch_sizes.shape[0]:
        return None
    grid, _ = _pad(data, batch_sizes, batch_first, fill, steps)
    return (grid if slots is None else grid.index_select(0 if batch_first else 1, slots)), lengths

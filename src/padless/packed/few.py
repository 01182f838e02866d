"""A `PackedSequence` of few sequences, made and padded by torch's own operators.

For few sequences without gradients these are faster than a walk over the rows, where the set-up is most of the work
(docs/decisions/0036-small-calls-where-torch-is-called.md).
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

from ..layout.walks import lengths_of_slots, may_call_library

__all__ = ["FEW_OF_PADDED", "is_faster_in_torch", "pack_few", "pad_few"]

# Sequences up to which torch's operators are faster; more if the sequences are padded already.
FEW, FEW_OF_PADDED = 6, 12

_pack = torch._VF._pack_padded_sequence  # type: ignore[attr-defined]
_pad = torch._VF._pad_packed_sequence  # type: ignore[attr-defined]


def is_faster_in_torch(count: int, *given: Any, most: int = FEW) -> bool:
    """Whether torch's own operators take these `count` sequences, whose rows are in the tensors `given`."""
    return (
        0 < count <= most
        and all(type(tensor) is Tensor and tensor.is_cpu for tensor in given)
        and not (torch.is_grad_enabled() and any(tensor.requires_grad for tensor in given))
        and may_call_library()
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
    if (
        0 in numbers or padded.numel() == 0
    ):  # torch's operator refuses sequences of length 0 and rows without elements
        return None
    if enforce_sorted:
        if any(a < b for a, b in pairwise(numbers)):
            return None
        return PackedSequence(*_pack(padded, lengths, batch_first))
    if len(numbers) == 1:
        return PackedSequence(
            *_pack(padded, lengths, batch_first), lengths.new_zeros(1), lengths.new_zeros(1)
        )
    lengths, order = torch.sort(lengths, descending=True)
    slots = np.empty(len(numbers), np.int64)
    slots[order.numpy()] = np.arange(len(numbers))
    rows = padded.index_select(0 if batch_first else 1, order)
    return PackedSequence(*_pack(rows, lengths, batch_first), order, torch.from_numpy(slots))


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
    if (
        not is_faster_in_torch(count, data)
        or data.dim() == 0
        or (total_length is not None and type(total_length) is not int)
    ):
        return None
    lengths = lengths_of_slots(batch_sizes, order, slots, rows=len(data))
    steps = batch_sizes.shape[0] if total_length is None else total_length
    if lengths is None or len(lengths) > FEW or not all(lengths.tolist()) or steps < batch_sizes.shape[0]:
        return None
    grid, _ = _pad(data, batch_sizes, batch_first, fill, steps)
    return (
        grid.contiguous() if slots is None else grid.index_select(0 if batch_first else 1, slots)
    ), lengths

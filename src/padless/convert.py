"""Between padless's layouts and torch's `PackedSequence`; knows index arithmetic, checks what was made by hand."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

from ._checks import check_batch_sizes, check_permutation
from ._layout import Layout, lengths_of_batch_sizes
from .errors import LayoutError

__all__ = ["layout_of_packed_sequence"]


def layout_of_packed_sequence(sequence: PackedSequence) -> Layout:
    """Layout of a `PackedSequence`: its lengths in the caller's order, its slots as its own indices say.

    `layout.time_major` therefore moves back-to-back rows to exactly the rows of `sequence.data`, and
    `layout.time_major.inverted()` moves those back to back, whichever way ties were broken.

    Args:
        sequence: made by torch, by padless or by hand; everything in it but `data` is checked.
            Sequences of length 0 are the entries of the indices beyond `batch_sizes[0]`.

    Raises:
        LayoutError: `batch_sizes`, `sorted_indices` or `unsorted_indices` that no batch can have.

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
    check_batch_sizes(batch_sizes, rows=data.shape[0])
    running = int(batch_sizes[0]) if batch_sizes.numel() else 0
    if sorted_indices is not None:
        check_permutation(sorted_indices, at_least=running, name="sorted_indices")
        order = sorted_indices.detach().cpu()  # synchronises when the batch lives on a device
        if unsorted_indices is not None:
            _check_inverse(order, unsorted_indices)
    elif unsorted_indices is not None:
        check_permutation(unsorted_indices, at_least=running, name="unsorted_indices")
        order = torch.argsort(unsorted_indices.detach().cpu())
    else:
        order = torch.arange(running)
    lengths = torch.empty_like(order)
    lengths[order] = lengths_of_batch_sizes(batch_sizes, order.numel())
    return Layout(lengths, order=order)


def _check_inverse(order: Tensor, unsorted_indices: Tensor) -> None:
    check_permutation(unsorted_indices, at_least=order.numel(), name="unsorted_indices")
    if unsorted_indices.numel() != order.numel():
        raise LayoutError(
            f"unsorted_indices has {unsorted_indices.numel()} entries, "
            f"sorted_indices has {order.numel()}"
        )
    wrong = unsorted_indices.detach().cpu()[order] != torch.arange(order.numel())
    if bool(wrong.any()):
        k = int(wrong.nonzero()[0, 0])
        raise LayoutError(
            f"unsorted_indices is not the inverse of sorted_indices: "
            f"sorted_indices[{k}] = {int(order[k])}, "
            f"but unsorted_indices[{int(order[k])}] is not {k}"
        )

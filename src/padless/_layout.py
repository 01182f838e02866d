"""Index arithmetic of ragged batches, on the host; knows no data and no autograd.

Three orders of the same N rows occur everywhere:

back to back   sequence after sequence: row (t, b) is at ``offsets[b] + t``
time-major     torch's packed order: step after step, the longest sequence first
padded         a grid of B times T cells, of which only N are rows

A sequence's *slot* is its place by length, longest first, so that the sequences still running at
step t are always the first ``batch_sizes[t]`` slots.
"""

from __future__ import annotations

from functools import cached_property

import torch
from torch import Tensor

from ._rows import RowMap

__all__ = ["Layout", "lengths_of_batch_sizes", "slot_steps"]


class Layout:
    """B lengths, and all that follows from them; computed once, never changed.

    `lengths` are trusted: they come from `_checks.as_lengths`. `order` is given where a
    `PackedSequence` has settled the slots; otherwise it follows from the lengths.
    """

    def __init__(self, lengths: Tensor, *, order: Tensor | None = None) -> None:
        self.lengths = lengths  # (B,) int64, host
        if order is not None:
            self.__dict__["order"] = order  # where cached_property would keep it

    @cached_property
    def batch(self) -> int:
        """B, the number of sequences, those of length 0 included."""
        return self.lengths.numel()

    @cached_property
    def rows(self) -> int:
        """N, the number of rows: the sum of the lengths."""
        return int(self.lengths.sum())

    @cached_property
    def steps(self) -> int:
        """T, the longest length."""
        return int(self.lengths.max()) if self.batch else 0

    @cached_property
    def offsets(self) -> Tensor:
        """`(B+1,)` where each sequence starts back to back, and N."""
        offsets = torch.zeros(self.batch + 1, dtype=torch.int64)
        torch.cumsum(self.lengths, 0, out=offsets[1:])
        return offsets

    @cached_property
    def order(self) -> Tensor:
        """`(B,)` the sequence in each slot: longest first, ties as torch's own packing breaks them."""
        return torch.sort(self.lengths, descending=True)[1]

    @cached_property
    def is_sorted(self) -> bool:
        """Whether the caller's order already is longest first."""
        return bool((self.lengths[1:] <= self.lengths[:-1]).all())

    @cached_property
    def batch_sizes(self) -> Tensor:
        """`(T,)` how many sequences are still running at each step."""
        ended = torch.bincount(self.lengths, minlength=self.steps + 1)[: self.steps]
        return self.batch - torch.cumsum(ended, 0)

    @cached_property
    def time_major(self) -> RowMap:
        """From back-to-back rows to time-major rows."""
        slot, step = slot_steps(self.batch_sizes)
        return RowMap.permutation(self.offsets[self.order][slot] + step)

    def padded(self, total_length: int, *, batch_first: bool, left: bool = False) -> RowMap:
        """From back-to-back rows to the cells of a padded grid; cells without a row are filled."""
        sequence = torch.repeat_interleave(torch.arange(self.batch), self.lengths)
        step = torch.arange(self.rows) - self.offsets[:-1][sequence]
        if left:
            step += (total_length - self.lengths)[sequence]
        cell = sequence * total_length + step if batch_first else step * self.batch + sequence
        return RowMap.placing(cell, total_length * self.batch)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Layout):
            return NotImplemented
        return self is other or torch.equal(self.lengths, other.lengths)

    def __hash__(self) -> int:
        return hash((self.batch, tuple(self.lengths[:16].tolist())))

    def __repr__(self) -> str:
        return f"Layout(B={self.batch}, N={self.rows}, T={self.steps})"

    def __reduce__(self) -> tuple[type[Layout], tuple[Tensor]]:
        return (Layout, (self.lengths,))


def slot_steps(batch_sizes: Tensor) -> tuple[Tensor, Tensor]:
    """The slot and the step `(N,)` of every time-major row."""
    step = torch.repeat_interleave(torch.arange(batch_sizes.numel()), batch_sizes)
    starts = torch.cumsum(batch_sizes, 0) - batch_sizes
    return torch.arange(step.numel()) - starts[step], step


def lengths_of_batch_sizes(batch_sizes: Tensor, batch: int) -> Tensor:
    """`(batch,)` the length in each slot, zeros for slots beyond `batch_sizes[0]`."""
    ends = torch.bincount(batch_sizes, minlength=batch + 1)[1:]  # steps that run exactly k slots
    return ends.flip(0).cumsum(0).flip(0)

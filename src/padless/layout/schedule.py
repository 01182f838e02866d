"""Index arithmetic of one batch on the host: the rows of each step, their places, and their sequences."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from .layout import Layout, cached, slot_steps

__all__ = ["Place", "Schedule", "back_to_back", "copied"]


class Place(NamedTuple):
    """Where rows are in a storage of `count` rows: row (t, slot) is number `step[t] + sequence[slot]`.

    With it, a kernel reads and writes packed, back-to-back and padded rows in place.
    """

    step: Tensor  # (T,) int64, host
    sequence: Tensor  # (slots,) or longer, int64, host
    count: int
    has_gaps: bool  # some row of the storage belongs to no sequence


def copied(indices: Tensor) -> Tensor:
    """A contiguous copy of the numbers."""
    return indices.clone(memory_format=torch.contiguous_format)


class Schedule:
    """The steps of N rows; computed once, shared by all layers and directions.

    All arguments are trusted. `batch_sizes (T,)` are positive and non-increasing (`checks.check_batch_sizes`). They
    are not copied, and kernels read them again in backward: pass `copied` ones if others can change them.
    Rows are time-major unless a place is given. `order (B,)`, on the rows' device, is the caller's sequence in
    each slot, those of length 0 last; without it sequences are in the order of their slots.
    """

    def __init__(
        self,
        batch_sizes: Tensor,
        place: Place | None = None,
        *,
        rows: int | None = None,
        slots: int | None = None,
        order: Tensor | None = None,
    ) -> None:
        self.batch_sizes = batch_sizes
        # Passed by the caller, or computed when first read.
        if rows is not None:
            self.__dict__["rows"] = rows
        if slots is not None:
            self.__dict__["slots"] = slots
        self.place = place  # None: time-major
        self.order = order

    @property
    def batch(self) -> int:
        """B, including sequences of length 0, which have an entry in `order` but no slot."""
        return self.slots if self.order is None else self.order.numel()

    def in_time_major(self) -> Schedule:
        """The same sequences with their rows in time-major order."""
        return Schedule(self.batch_sizes, rows=self.rows, slots=self.slots, order=self.order)

    @property
    def storage_rows(self) -> int:
        """Number of rows of the storage."""
        return self.rows if self.place is None else self.place.count

    @property
    def has_gaps(self) -> bool:
        """Whether some row of the storage belongs to no sequence."""
        return self.place is not None and self.place.has_gaps

    @cached
    def addresses(self) -> Tensor:
        """`(N,)` the storage row of each time-major row."""
        if self.place is None:
            return torch.arange(self.rows, device="cpu")
        slot, step = slot_steps(self.batch_sizes)
        return self.place.step[step] + self.place.sequence[slot]

    @cached
    def sizes(self) -> list[int]:
        """How many slots run at each step."""
        return self.batch_sizes.tolist()

    @property
    def steps(self) -> int:
        """T, the number of steps."""
        return self.batch_sizes.numel()

    @cached
    def slots(self) -> int:
        """The number of sequences that have rows."""
        return int(self.batch_sizes[0]) if self.steps else 0

    @cached
    def rows(self) -> int:
        """N, the number of rows."""
        return int(self.batch_sizes.sum())

    @cached
    def starts(self) -> Tensor:
        """`(T,)` the first row of each step."""
        return torch.cumsum(self.batch_sizes, 0) - self.batch_sizes

    @cached
    def last_rows(self) -> Tensor:
        """`(slots,)` the row of each slot's last step."""
        steps = torch.arange(self.steps, device="cpu")
        ended = self.batch_sizes - torch.cat([self.batch_sizes[1:], self.batch_sizes.new_zeros(1)])
        # Counted from the first slot, the last steps go from T-1 down to 0.
        last_step = torch.repeat_interleave(steps.flip(0), ended.flip(0))
        return self.starts[last_step] + torch.arange(self.slots, device="cpu")

    def previous_rows(self, *, reverse: bool) -> Tensor:
        """`(N,)` the index of each row's previous state in the concatenation of initial states and rows."""
        return self._previous_reverse if reverse else self._previous_forward

    @cached
    def _previous_forward(self) -> Tensor:
        # Row r of step t >= 1 follows the row of the same slot one step before: slots + r - sizes[t-1].
        _, step = slot_steps(self.batch_sizes)
        before = torch.cat([self.batch_sizes.new_tensor([self.slots]), self.batch_sizes])[: self.steps]
        return torch.arange(self.rows, device="cpu") + self.slots - before[step]

    @cached
    def _previous_reverse(self) -> Tensor:
        slot, step = slot_steps(self.batch_sizes)
        after = torch.cat([self.batch_sizes[1:], self.batch_sizes.new_zeros(1)])
        next_row = self.slots + torch.arange(self.rows, device="cpu") + self.batch_sizes[step]
        return torch.where(slot < after[step], next_row, slot)


def back_to_back(layout: Layout, device: torch.device) -> Schedule:
    """The steps of rows back to back, as in a `Packed`; its sequences of length 0 have no slot."""
    step = torch.arange(layout.steps, device="cpu")
    place = Place(step, layout.offsets.index_select(0, layout.order), layout.rows, has_gaps=False)
    return Schedule(layout.batch_sizes, place, rows=layout.rows, order=layout.order.to(device))

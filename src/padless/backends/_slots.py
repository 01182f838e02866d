"""States between the caller's order and slots, for backends that count on slots; differentiable."""

from __future__ import annotations

import torch

from .._schedule import Schedule
from .contract import States

__all__ = ["into_slots", "out_of_slots"]


def into_slots(states: States, schedule: Schedule) -> States:
    """States `(..., slots, H)` of the sequences that have rows, longest first, out of `(..., B, H)`."""
    if schedule.order is not None:
        return tuple(s.index_select(-2, schedule.order[: schedule.slots]) for s in states)
    if schedule.batch > schedule.slots:
        return tuple(s.narrow(-2, 0, schedule.slots) for s in states)
    return states


def out_of_slots(finals: States, states: States, schedule: Schedule) -> States:
    """Final states in the caller's order; a sequence of length 0 has its initial state, of `states`, back."""
    order, slots, batch = schedule.order, schedule.slots, schedule.batch
    if order is None:
        if slots == batch:
            return finals
        return tuple(
            torch.cat([f, s.narrow(-2, slots, batch - slots)], -2)
            for f, s in zip(finals, states, strict=True)
        )
    if slots < batch:
        unmoved = order[slots:]
        finals = tuple(
            torch.cat([f, s.index_select(-2, unmoved)], -2) for f, s in zip(finals, states, strict=True)
        )
    inverse = torch.empty_like(order)
    inverse[order] = torch.arange(batch, device=inverse.device)
    return tuple(f.index_select(-2, inverse) for f in finals)

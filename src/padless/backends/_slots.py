"""Moves states between the caller's order and slots, differentiably, for backends that use slots."""

from __future__ import annotations

import torch

from ..layout.schedule import Schedule
from .contract import States

__all__ = ["into_slots", "out_of_slots"]


def into_slots(states: States, schedule: Schedule) -> States:
    """States `(..., slots, H)` of the sequences that have rows, longest first, from `(..., B, H)`."""
    if schedule.order is None:
        return states
    return tuple(s.index_select(-2, schedule.order[: schedule.slots]) for s in states)


def out_of_slots(finals: States, states: States, schedule: Schedule) -> States:
    """Final states in the caller's order; a sequence of length 0 gets its initial state from `states`."""
    order = schedule.order
    if order is None:
        return finals
    if schedule.slots < schedule.batch:
        unmoved = order[schedule.slots :]
        finals = tuple(
            torch.cat([f, s.index_select(-2, unmoved)], -2) for f, s in zip(finals, states, strict=True)
        )
    inverse = torch.empty_like(order)
    inverse[order] = torch.arange(schedule.batch, device=inverse.device)
    return tuple(f.index_select(-2, inverse) for f in finals)

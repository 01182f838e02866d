"""Stacks layers and directions on top of any backend, with dropout between layers."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from ..backends import autograd, choose, native, portable, torch_
from ..backends._precision import precision_of
from ..backends._slots import into_slots, out_of_slots
from ..backends.contract import Backend, Cell, Layer, States, layer_output_dtype, layer_weights
from ..layout.schedule import Schedule

__all__ = ["Options", "reads_in_place", "run"]


class Options(NamedTuple):
    """The options of a recurrent network."""

    cell: Cell
    num_layers: int
    bias: bool
    dropout: float
    training: bool
    bidirectional: bool
    projected: bool
    output_dtype: torch.dtype | None = (
        None  # of the last layer under autocast, which multiplies bfloat16 numbers
    )

    @property
    def directions(self) -> int:
        return 2 if self.bidirectional else 1


def reads_in_place(rows: Tensor, options: Options) -> bool:
    """Whether `run` accepts rows placed by `schedule.place`, not only time-major rows.

    Not with dropout between layers: its mask is drawn for time-major rows, so that a seed gives the same result
    for every kind of input and every backend.
    """
    drops = options.dropout > 0 and options.training and options.num_layers > 1
    return _backend_of(rows, options) is native and not drops


def _backend_of(rows: Tensor, options: Options) -> Backend | None:
    """Return the backend module for these layers, or None if torch's own operators run them."""
    name = choose(rows.device.type)
    if name == "native" and native.computes(rows):
        return native
    return None if name == "torch" else portable


def run(
    rows: Tensor, schedule: Schedule, states: States, weights: list[Tensor], options: Options
) -> tuple[Tensor, States]:
    """Output `(N, D*P)` of the last layer, placed like the rows, and final states `(L*D, B, *)`.

    Args:
        rows: `(N, I)`, time-major; or, if `reads_in_place`, `(M, I)` placed as `schedule` says.
        schedule: which rows run at which step.
        states: LSTM `(h0, c0)`, else `(h0,)`, each `(L*D, B, *)` in the caller's order.
        weights: torch's flat list, layer by layer, direction by direction.
        options: of the network.
    """
    backend = _backend_of(rows, options)
    if backend is not None and backend.STATES_BY == "sequence":
        return _run_layers(backend, rows, schedule, states, weights, options)
    in_slots = into_slots(states, schedule)
    if backend is None and schedule.steps:
        output, finals = torch_.run(
            options.cell,
            rows,
            schedule.batch_sizes,
            in_slots,
            weights,
            bias=options.bias,
            num_layers=options.num_layers,
            dropout=options.dropout,
            training=options.training,
            bidirectional=options.bidirectional,
        )
    else:  # torch's operators do not accept a batch without steps
        output, finals = _run_layers(portable, rows, schedule, in_slots, weights, options)
    return output, out_of_slots(finals, states, schedule)


def _run_layers(
    backend: Backend,
    rows: Tensor,
    schedule: Schedule,
    states: States,
    weights: list[Tensor],
    options: Options,
) -> tuple[Tensor, States]:
    """Like `run`, with states in the form that `backend` takes and returns."""
    initial = list(zip(*(s.unbind(0) for s in states), strict=True))
    autocast = options.output_dtype is not None
    precision = precision_of(torch.bfloat16 if autocast else rows.dtype) if backend is native else "highest"
    finals: list[States] = []
    for layer in range(options.num_layers):
        is_last = layer == options.num_layers - 1
        dtype = layer_output_dtype(options.output_dtype, is_last=is_last)
        # In inference the two directions write to the two halves of one output.
        joined, outputs = None, []
        if options.bidirectional and backend is native and not autograd.is_recorded(rows, *states, *weights):
            joined = native.new_output(rows, schedule, 2 * weights[1].shape[1], dtype)
        for direction in range(options.directions):
            place = layer * options.directions + direction
            mine = layer_weights(weights, place, bias=options.bias, projected=options.projected)
            reverse = direction == 1
            output, final = autograd.run_layer(
                backend,
                Layer(options.cell, rows, schedule, initial[place], mine, reverse, precision, dtype),
                out=None if joined is None else joined.chunk(2, 1)[direction],
            )
            outputs.append(output)
            finals.append(final)
        if joined is None:
            rows = outputs[0] if len(outputs) == 1 else torch.cat(outputs, 1)
        else:
            rows = joined
        if options.dropout and options.training and not is_last:
            # On the same rows in the same order as in torch, so that a seed gives the same mask.
            rows = functional.dropout(rows, options.dropout, training=True)
    if options.directions == 1 and rows.requires_grad:
        rows = rows.clone()  # callers may change outputs in place (ReLU, dropout); the node keeps its own
    if len(finals) == 1:
        return rows, tuple(state.unsqueeze(0) for state in finals[0])
    return rows, tuple(torch.stack(parts) for parts in zip(*finals, strict=True))

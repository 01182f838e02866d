"""One layer by the C++ kernels: forward, backward and inference on CPU tensors; no autograd.

The kernels compute in float32 and float64. They read and write bfloat16 rows too, and save gates in bfloat16 where rows
are bfloat16 or are rounded to it for products. float16 tensors are converted to float32 for the kernels, and their
output is rounded. Sums and cells are float32 either way. Other dtypes go to the portable backend (`computes`). Tensors
are checked in `nn`; the C side checks sizes and offsets again.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import overload

import torch
from torch import Tensor

from ..layout.schedule import Schedule
from . import _kept_weights, _kernels
from ._recompute import is_recomputing
from .contract import Cell, Gradients, Layer, LayerWeights, Precision, Saved, States, StatesBy

__all__ = ["STATES_BY", "backward", "computes", "forward", "infer", "new_output"]

STATES_BY: StatesBy = "sequence"


def computes(rows: Tensor) -> bool:
    """Whether the kernels can compute layers on such rows."""
    return rows.dtype in _kernels.DTYPES or rows.dtype in _kernels.NARROW_DTYPES


def new_output(rows: Tensor, schedule: Schedule, width: int, dtype: torch.dtype | None = None) -> Tensor:
    """New tensor `(M, width)` addressed like the rows and, by default, of their dtype; 0 in the gaps between them."""
    new = _kernels.empty(rows, schedule.storage_rows, width, dtype)
    return new.zero_() if schedule.has_gaps else new


def infer(layer: Layer, *, out: Tensor | None = None) -> tuple[Tensor, States]:
    """Output `(M, P)`, placed like the rows `(M, I)`, and final states; nothing is kept for backward.

    `out`: the tensor to write to, from `new_output` or a slice of its columns; allocated if None.
    """
    if _is_widened(layer):
        output, finals = infer(_widened(layer))
        narrow = output.to(layer.rows.dtype) if out is None else out.copy_(output)
        return narrow, _like(layer.states, finals)
    if out is None:
        out = new_output(layer.rows, layer.schedule, layer.weights.output, layer.output_dtype)
    return out, _forward(layer, out, None, None)


def forward(layer: Layer, *, saved: Saved | None = None) -> tuple[Tensor, States, Saved]:
    """Output `(M, P)`, placed like the rows `(M, I)`, final states, and what backward needs.

    `saved`: gates and cells of N rows to write to; allocated if None.
    """
    cell, rows, schedule, _, weights, *_ = layer
    if _is_widened(layer):
        output, finals, saved = forward(_widened(layer), saved=saved)
        return output.to(rows.dtype), _like(layer.states, finals), saved
    if saved is None:
        hidden = weights.hidden
        width = 0 if is_recomputing() else _kernels.saved_width(cell, hidden)
        dtype = _kernels.wide_dtype(rows.dtype)
        gates = _kernels.empty(rows, schedule.rows, width, _kernels.gates_dtype(rows.dtype, layer.precision))
        saved = gates, _kernels.empty(rows, schedule.rows, _kernels.cells_width(cell, hidden), dtype)
    output = new_output(rows, schedule, weights.output, layer.output_dtype)
    return output, _forward(layer, output, *saved), saved


def _is_widened(layer: Layer) -> bool:
    """Whether rows must be converted to float32 first, because the kernels cannot read their dtype."""
    return layer.rows.dtype == torch.float16


def _widened(layer: Layer) -> Layer:
    """The layer with rows and states in float32; weights are widened when they are packed."""
    states = tuple(s.float() for s in layer.states)
    return layer._replace(rows=layer.rows.float(), states=states, output_dtype=None)


@overload
def _like(tensors: States, values: States) -> States: ...
@overload
def _like(tensors: Gradients, values: Gradients) -> Gradients: ...
def _like(tensors: Gradients, values: Gradients) -> Gradients:
    """The values, converted to the dtypes of `tensors`."""
    # `Tensor.to` takes a microsecond to do nothing.
    return tuple(
        v if v is None or t is None or v.dtype is t.dtype else v.to(t.dtype)
        for t, v in zip(tensors, values, strict=True)
    )


def _forward(layer: Layer, output: Tensor, gates: Tensor | None, cells: Tensor | None) -> States:
    """Write the output and return the final states."""
    cell, rows, schedule, states, weights, reverse, precision, _ = layer
    if schedule.steps == 0:
        return tuple(s.clone() for s in states)
    finals = tuple(s.new_empty(s.shape) for s in states)
    # In training the weights change at every step, so caching them is useless.
    pack = _kept_weights.packed_forward if cells is None else _kernels.pack_forward
    packed = _pack(pack, cell, weights, precision)
    _kernels.forward(
        cell,
        packed,
        _addressed(_with_unit_columns(rows), schedule),
        _addressed(output, schedule),
        schedule.batch_sizes,
        schedule.rows,
        state_rows=schedule.batch,
        state_index=schedule.order,
        initial=_kernels.States(*(_with_unit_columns(s) for s in states)),
        final=_kernels.States(*finals),
        gates=_unless_empty(gates),
        cells=_unless_empty(cells),
        hidden=weights.hidden if weights.is_projected else None,
        reverse=reverse,
        threads=_threads(layer),
        precision=precision,
    )
    return finals


def backward(
    layer: Layer,
    output: Tensor,
    saved: Saved,
    grad_output: Tensor | None,
    grad_finals: Gradients,
    needs: tuple[bool, ...],
) -> Gradients:
    """Gradients of rows, h0, c0 and the five weights, if `needs` asks for them."""
    cell, rows, schedule, states, weights, reverse, precision, _ = layer
    wanted = (rows, states[0], states[1] if len(states) == 2 else None, *weights)
    if _is_widened(layer):
        wide_grad, *wide_finals = (None if g is None else g.float() for g in (grad_output, *grad_finals))
        wide_grads = backward(_widened(layer), output.float(), saved, wide_grad, tuple(wide_finals), needs)
        return _like(wanted, wide_grads)
    wide = _kernels.wide_dtype(
        rows.dtype
    )  # of the sums over rows: the gradients of the weights, from place 3 on
    grads = [
        torch.empty_like(t, dtype=t.dtype if i < 3 else wide, memory_format=torch.contiguous_format)
        if need and t is not None
        else None
        for i, (t, need) in enumerate(zip(wanted, needs, strict=True))
    ]
    if schedule.steps == 0:
        return _like(wanted, _backward_without_rows(grads, grad_finals))
    if grads[0] is not None:
        _kernels.prefer_large_pages(grads[0])
        if schedule.has_gaps:
            grads[0].zero_()
    gates, cells = (_unless_empty(t) for t in saved)
    packed_forward = None
    if gates is None and _kernels.saved_width(cell, weights.hidden):
        packed_forward = _pack(_kernels.pack_forward, cell, weights, precision)
    _kernels.backward(
        cell,
        _kernels.pack_backward(
            cell,
            _contiguous(weights.w_ih),
            _contiguous(weights.w_hh),
            _contiguous(weights.w_hr),
            precision=precision,
        ),
        _addressed(_with_unit_columns(rows), schedule),
        _addressed(output, schedule),
        schedule.batch_sizes,
        schedule.rows,
        state_rows=schedule.batch,
        state_index=schedule.order,
        initial=_kernels.States(*(_with_unit_columns(s) for s in states)),
        gates=gates,
        cells=cells,
        packed_forward=packed_forward,
        dy=_with_unit_columns(grad_output),
        d_final=_kernels.States(*(_with_unit_columns(g) for g in grad_finals)),
        d_initial=_kernels.States(grads[1], grads[2]),
        dx=grads[0],
        dw_ih=grads[3],
        dw_hh=grads[4],
        db_ih=grads[5],
        db_hh=grads[6],
        dw_hr=grads[7],
        hidden=weights.hidden if weights.is_projected else None,
        reverse=reverse,
        threads=_threads(layer),
        precision=precision,
    )
    return _like(wanted, tuple(grads))


def _backward_without_rows(grads: list[Tensor | None], grad_finals: Gradients) -> Gradients:
    """Without rows the final states are the initial states, so only those have gradients."""
    for grad in grads:
        if grad is not None:
            grad.zero_()
    for state_grad, grad in zip(grads[1:3], grad_finals, strict=False):
        if state_grad is not None and grad is not None:
            state_grad.copy_(grad)
    return tuple(grads)


def _threads(layer: Layer) -> int:
    weights = layer.weights
    output = weights.output if weights.is_projected else None
    return _kernels.threads_for(layer.cell, layer.schedule.rows, layer.rows.shape[1], weights.hidden, output)


def _addressed(data: Tensor, schedule: Schedule) -> _kernels.Rows:
    """The rows and their addresses, as the kernels take them."""
    place = schedule.place
    return _kernels.Rows(data) if place is None else _kernels.Rows(data, place.step, place.sequence)


@overload
def _with_unit_columns(tensor: Tensor) -> Tensor: ...
@overload
def _with_unit_columns(tensor: Tensor | None) -> Tensor | None: ...
def _with_unit_columns(tensor: Tensor | None) -> Tensor | None:
    """The tensor with unit column stride and rows that do not overlap: itself, or a copy.

    Gradients often come with stride 0, after `.sum()` or `.expand()`.
    """
    if tensor is None:
        return None
    if tensor.stride(1) == 1 and tensor.stride(0) >= tensor.shape[1] and not tensor.is_neg():
        return tensor
    return _contiguous(tensor)


def _pack(pack: Callable[..., Tensor], cell: Cell, weights: LayerWeights, precision: Precision) -> Tensor:
    b_ih, b_hh, w_hr = _contiguous(weights.b_ih), _contiguous(weights.b_hh), _contiguous(weights.w_hr)
    return pack(
        cell, _contiguous(weights.w_ih), _contiguous(weights.w_hh), b_ih, b_hh, w_hr, precision=precision
    )


@overload
def _contiguous(tensor: Tensor) -> Tensor: ...
@overload
def _contiguous(tensor: Tensor | None) -> Tensor | None: ...
def _contiguous(tensor: Tensor | None) -> Tensor | None:
    """A contiguous tensor without the lazy negative bit, which the imaginary part of a conjugate has."""
    if tensor is None:
        return None
    return (tensor.resolve_neg() if tensor.is_neg() else tensor).contiguous()


def _unless_empty(tensor: Tensor | None) -> Tensor | None:
    return None if tensor is None or tensor.numel() == 0 else tensor

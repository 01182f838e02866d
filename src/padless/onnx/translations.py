"""padless's operators as ONNX graphs: one function per operator, with the operator's arguments.

A layer's rows are gathered into a grid (T, B, I) with the longest sequence first, go through ONNX's own node with
`sequence_lens`, and are gathered back.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import onnx_ir
import torch
from onnxscript import opset18

from ..backends import operators as layers
from ..layout import operators as indices

__all__ = ["table"]

# torch's gates are i f g o and r z n; ONNX's are i o f c and z r h.
_GATES = {"LSTM": (0, 3, 1, 2), "GRU": (1, 0, 2), "RNN_TANH": (0,), "RNN_RELU": (0,)}
op: Any = opset18  # its annotations do not allow missing values
_INT64 = onnx_ir.DataType.INT64
Value = Any


def table() -> dict[Callable[..., Any], Callable[..., Any]]:
    """The translation of each operator."""
    return {
        layers.layer: layer,
        torch.ops.padless.checked_lengths.default: checked_lengths,
        torch.ops.padless.batch_sizes.default: batch_sizes,
        torch.ops.padless.row_owners.default: row_owners,
        torch.ops.padless.padded_rows.default: padded_rows,
        torch.ops.padless.padded_cells.default: padded_cells,
        indices.grid_schedule: grid_schedule,
        indices.rows_schedule: rows_schedule,
        indices.pack_indices: pack_indices,
        indices.pad_indices: pad_indices,
        indices.slot_lengths: slot_lengths,
    }


# ---- small pieces


def _ints(*values: int) -> Value:
    return op.Constant(value_ints=list(values))


def _scalar(value: Value) -> Value:
    """An int or a tensor of one element as a scalar."""
    return op.Constant(value_int=value) if isinstance(value, int) else op.Squeeze(_vector(value), _ints(0))


def _vector(value: Value) -> Value:
    """An int or a tensor of one element as a tensor (1,)."""
    return _ints(value) if isinstance(value, int) else op.Reshape(value, _ints(1))


def _size(value: Value, dim: int) -> Value:
    """The size of a dimension, (1,)."""
    return op.Shape(value, start=dim, end=dim + 1)


def _range(count: Value) -> Value:
    return op.Range(op.Constant(value_int=0), _scalar(count), op.Constant(value_int=1))


def _column(vector: Value) -> Value:
    return op.Unsqueeze(vector, _ints(1))


def _line(vector: Value) -> Value:
    return op.Unsqueeze(vector, _ints(0))


def _is_run(batch_sizes: Value, slots: Value) -> Value:
    """Bool (T, B): whether a slot runs at a step."""
    return op.Less(_line(slots), _column(batch_sizes))


def _batch_sizes(lengths: Value, steps: Value) -> Value:
    runs = op.Greater(_line(lengths), _column(_range(steps)))
    return op.ReduceSum(op.Cast(runs, to=_INT64), _ints(1), keepdims=0)


def _longest_first(lengths: Value) -> Value:
    _, order = op.TopK(lengths, _size(lengths, 0))
    return order


def _inverse(order: Value) -> Value:
    _, inverse = op.TopK(order, _size(order, 0), largest=0)
    return inverse


def _before(counts: Value) -> Value:
    """For each count, the sum of the counts before it."""
    return op.CumSum(counts, op.Constant(value_int=0), exclusive=1)


def _where_true(mask: Value) -> Value:
    """Positions of True in the flattened mask, (N,)."""
    return op.Reshape(op.NonZero(op.Reshape(mask, _ints(-1))), _ints(-1))


# ---- indices


def checked_lengths(lengths: Value, steps: Value | None) -> Value:
    return op.Cast(lengths, to=_INT64)  # ONNX cannot raise errors: lengths are trusted


def batch_sizes(lengths: Value) -> Value:
    return _batch_sizes(lengths, op.ReduceMax(lengths, _ints(0), keepdims=0))


def row_owners(counts: Value, rows: Value) -> Value:
    is_row = op.Less(_line(_range(op.ReduceMax(counts, _ints(0), keepdims=0))), _column(counts))
    return op.Squeeze(op.Slice(op.NonZero(is_row), _ints(0), _ints(1), _ints(0)), _ints(0))


def padded_rows(lengths: Value, steps: Value, batch_first: bool, left: bool) -> Value:
    """The back-to-back row of each cell, or one past the last if the cell has none."""
    place = _line(_range(steps))  # position in the sequence, (1, T) or (B, T)
    if left:
        place = op.Sub(place, _column(op.Sub(_vector(steps), lengths)))
    is_row = op.And(op.GreaterOrEqual(place, _ints(0)), op.Less(place, _column(lengths)))
    rows = op.Where(
        is_row, op.Add(place, _column(_before(lengths))), op.ReduceSum(lengths, _ints(0), keepdims=1)
    )
    return op.Reshape(rows if batch_first else op.Transpose(rows, perm=[1, 0]), _ints(-1))


def padded_cells(lengths: Value, steps: Value, batch_first: bool, left: bool) -> Value:
    """The cell of each back-to-back row."""
    step, sequence = _line(_range(steps)), _column(_range(_size(lengths, 0)))
    if left:
        is_row = op.GreaterOrEqual(step, _column(op.Sub(_vector(steps), lengths)))
    else:
        is_row = op.Less(step, _column(lengths))
    if batch_first:
        cells = op.Add(op.Mul(sequence, _vector(steps)), step)
    else:
        cells = op.Add(op.Mul(step, _size(lengths, 0)), sequence)
    return op.Gather(op.Reshape(cells, _ints(-1)), _where_true(is_row))


def grid_schedule(lengths: Value, steps: Value) -> tuple[Value, Value]:
    lengths = op.Cast(lengths, to=_INT64)
    return _batch_sizes(lengths, steps), _longest_first(lengths)


def rows_schedule(lengths: Value, rows: Value) -> tuple[Value, Value, Value]:
    lengths = op.Cast(lengths, to=_INT64)
    order = _longest_first(lengths)
    steps = op.ReduceMax(lengths, _ints(0), keepdims=0)
    return _batch_sizes(lengths, steps), order, op.Gather(_before(lengths), order)


def pack_indices(
    lengths: Value, steps: Value, batch_first: bool, enforce_sorted: bool
) -> tuple[Value, Value, Value, Value]:
    lengths = op.Cast(lengths, to=_INT64)
    batch_sizes = _batch_sizes(lengths, op.ReduceMax(lengths, _ints(0), keepdims=0))
    slots = _range(_size(lengths, 0))
    order = slots if enforce_sorted else _longest_first(lengths)
    step, sequence = _column(_range(_size(batch_sizes, 0))), _line(order)
    if batch_first:
        sequence = op.Mul(sequence, _vector(steps))
    else:
        step = op.Mul(step, _size(lengths, 0))
    cells = op.Reshape(op.Add(step, sequence), _ints(-1))
    return op.Gather(cells, _where_true(_is_run(batch_sizes, slots))), batch_sizes, order, _inverse(order)


def pad_indices(
    batch_sizes: Value, order: Value | None, rows: Value, steps: Value, batch_first: bool
) -> tuple[Value, Value]:
    missing = op.Sub(_vector(steps), _size(batch_sizes, 0))
    sizes = op.Concat(batch_sizes, op.Expand(_ints(0), missing), axis=0)
    count = op.Gather(sizes, _ints(0)) if order is None else _size(order, 0)
    slots = _range(count)
    runs = _is_run(sizes, slots)
    index = op.Where(runs, op.Add(_column(_before(sizes)), _line(slots)), _vector(rows))
    lengths = op.ReduceSum(op.Cast(runs, to=_INT64), _ints(0), keepdims=0)
    if order is not None:
        inverse = _inverse(order)
        index, lengths = op.Gather(index, inverse, axis=1), op.Gather(lengths, inverse)
    return op.Transpose(index, perm=[1, 0]) if batch_first else index, lengths


def slot_lengths(
    batch_sizes: Value, order: Value | None, slots: Value | None, rows: Value
) -> tuple[Value, Value, Value]:
    if order is None:
        order = _range(op.Gather(batch_sizes, _ints(0))) if slots is None else _inverse(slots)
    inverse = _inverse(order)
    runs = _is_run(batch_sizes, _range(_size(order, 0)))
    lengths = op.ReduceSum(op.Cast(runs, to=_INT64), _ints(0), keepdims=0)
    return op.Gather(lengths, inverse), order, inverse


# ---- layers


def layer(
    cell: str,
    rows: Value,
    batch_sizes: Value,
    order: Value | None,
    step: Value | None,
    sequence: Value | None,
    h0: Value,
    c0: Value | None,
    w_ih: Value,
    w_hh: Value,
    b_ih: Value | None,
    b_hh: Value | None,
    w_hr: Value | None,
    reverse: bool,
    output_dtype: int | None,
    keep: str,
    exact: bool,
) -> tuple[Value, ...]:
    if w_hr is not None:
        raise NotImplementedError("ONNX has no LSTM with a projection (proj_size)")
    if output_dtype is not None:
        raise NotImplementedError("ONNX's layers have one dtype; export the model outside of autocast")
    slots = _range(_size(h0, 0))
    runs = _is_run(batch_sizes, slots)
    if step is None or sequence is None:
        address = op.Add(_column(_before(batch_sizes)), _line(slots))
    else:
        address = op.Add(_column(step), _line(sequence))
    grid = op.Gather(rows, op.Where(runs, address, _ints(0)))
    lengths = op.ReduceSum(op.Cast(runs, to=_INT64), _ints(0), keepdims=0)
    initial = [state if order is None else op.Gather(state, order) for state in (h0, c0) if state is not None]
    output, *finals = _node(cell, grid, lengths, initial, (w_ih, w_hh, b_ih, b_hh), reverse)
    output = op.Squeeze(output, _ints(1))
    width = _size(w_hh, 1)
    found = op.Gather(op.Reshape(output, op.Concat(_ints(-1), width, axis=0)), _where_true(runs))
    if step is not None and sequence is not None:
        places = op.Gather(op.Reshape(address, _ints(-1)), _where_true(runs))
        zeros = op.Expand(
            op.CastLike(op.Constant(value_float=0.0), rows), op.Concat(_size(rows, 0), width, axis=0)
        )
        found = op.ScatterND(zeros, _column(places), found)
    is_empty = _column(op.Equal(lengths, _ints(0)))
    states = [
        op.Where(is_empty, before, op.Squeeze(after, _ints(0)))
        for before, after in zip(initial, finals, strict=True)
    ]
    if order is not None:
        states = [op.Gather(state, _inverse(order)) for state in states]
    nothing = op.Slice(op.Reshape(h0, _ints(-1)), _ints(0), _ints(0), _ints(0))
    h_n, c_n = states if len(states) == 2 else (states[0], nothing)
    return found, h_n, c_n, nothing


def _node(
    cell: str,
    grid: Value,
    lengths: Value,
    states: list[Value],
    weights: tuple[Value, Value, Value | None, Value | None],
    reverse: bool,
) -> tuple[Value, ...]:
    """ONNX's LSTM, GRU or RNN: output (T, 1, B, H) and final states (1, B, H)."""
    w_ih, w_hh, b_ih, b_hh = (None if w is None else _line(_in_onnx_order(cell, w)) for w in weights)
    bias = None if b_ih is None else op.Concat(b_ih, b_hh, axis=1)
    common: dict[str, Any] = {
        "hidden_size": int(weights[1].shape[1]),
        "direction": "reverse" if reverse else "forward",
    }
    given = (grid, w_ih, w_hh, bias, op.Cast(lengths, to=onnx_ir.DataType.INT32), *map(_line, states))
    if cell == "LSTM":
        return op.LSTM(*given, **common)
    if cell == "GRU":
        return op.GRU(*given, linear_before_reset=1, **common)
    return op.RNN(*given, activations=["Tanh" if cell == "RNN_TANH" else "Relu"], **common)


def _in_onnx_order(cell: str, weight: Value) -> Value:
    gates = _GATES[cell]
    size = int(weight.shape[0]) // len(gates)
    parts = [op.Slice(weight, _ints(gate * size), _ints((gate + 1) * size), _ints(0)) for gate in gates]
    return op.Concat(*parts, axis=0)

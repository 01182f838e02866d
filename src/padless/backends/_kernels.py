"""ctypes bindings of the C++ kernels: thin calls on tensors that are already checked; no autograd.

The C side (`csrc/padless.h`) checks every size, stride and offset again; its error codes become `BackendError`s.
A call computes one layer in one direction. Rows are addressed, not moved: in `Rows(data, step, sequence)`, row
(t, slot) of a matrix is at `data[step[t] + sequence[slot]]`; without `step` and `sequence`, rows are time-major.
"""

from __future__ import annotations

import ctypes
from typing import NamedTuple

import torch
from torch import Tensor

from ..errors import BackendError
from ..layout.walks import prefer_large_pages, team_size
from ..library import (
    Problem,
    assume_l2_bytes,
    check,
    compiled_isas,
    computes_dtype,
    force_isa,
    isa,
    load,
    missing,
    supported_isas,
)
from .contract import GATES, Precision

__all__ = [
    "CELLS",
    "DTYPES",
    "NARROW_DTYPES",
    "PRECISIONS",
    "Problem",
    "Rows",
    "States",
    "arithmetic",
    "assume_l2_bytes",
    "backward",
    "cells_width",
    "check",
    "compiled_isas",
    "computes",
    "empty",
    "fingerprint",
    "force_isa",
    "forward",
    "gates_dtype",
    "isa",
    "load",
    "missing",
    "pack_backward",
    "pack_forward",
    "prefer_large_pages",
    "saved_width",
    "supported_isas",
    "threads_for",
    "wide_dtype",
]

CELLS = {"LSTM": 0, "GRU": 1, "RNN_TANH": 2, "RNN_RELU": 3}
DTYPES = {torch.float32: 0, torch.float64: 1}
# Torch's names of the precisions of float32 products -> the values of `padless_dtype`.
PRECISIONS: dict[Precision, int] = {"highest": 0, "high": 3, "medium": 2}
# Layers of these dtypes have float32 sums and cells.
NARROW_DTYPES = frozenset({torch.bfloat16, torch.float16})
_TEAM_MULTIPLICATIONS = 1 << 21  # about 30 us; for fewer, a second thread may cost more than it saves


class Rows(NamedTuple):
    """A matrix whose row (t, slot) is at `data[step[t] + sequence[slot]]`."""

    data: Tensor  # (rows, width), unit column stride, row stride at least the width
    step: Tensor | None = None  # (T,) int64, contiguous; None with sequence: time-major
    sequence: Tensor | None = None  # (B,) int64, contiguous


class States(NamedTuple):
    """State tensors `(rows, P)`, `(rows, H)` with unit column stride; None means zeros, or not requested.

    All states of a call have one dtype, bfloat16 or that of the sums.
    """

    h: Tensor | None = None
    c: Tensor | None = None


_NO_STATES = States()


def threads_for(cell: str, rows: int, input_size: int, hidden: int, output: int | None = None) -> int:
    """Threads for one call: `team_size`, or 1 for little work.

    `output` is the width of h if there is a projection.
    """
    work = GATES[cell] * hidden * (input_size + (output or hidden)) + hidden * (output or 0)
    return team_size() if rows * work >= _TEAM_MULTIPLICATIONS else 1


def saved_width(cell: str, hidden: int) -> int:
    """Elements per row of saved gates; 0 if the cell saves none."""
    return load().padless_saved_width(CELLS[cell], hidden)


def cells_width(cell: str, hidden: int) -> int:
    """Elements per row of saved cells; 0 for all but LSTM."""
    return load().padless_cells_width(CELLS[cell], hidden)


def gates_dtype(rows_dtype: torch.dtype, precision: Precision) -> torch.dtype:
    """The dtype in which gates are saved for backward: bfloat16 if rows are, or are rounded to it in products."""
    if rows_dtype == torch.bfloat16 or precision == "medium":
        return torch.bfloat16
    return wide_dtype(rows_dtype)


def wide_dtype(rows_dtype: torch.dtype) -> torch.dtype:
    """The dtype of sums, cells and weight gradients inside the kernels, for rows of this dtype."""
    return torch.float32 if rows_dtype in NARROW_DTYPES else rows_dtype


def _pointer(tensor: Tensor | None) -> int:
    return 0 if tensor is None else tensor.data_ptr()


def _pointer_and_stride(tensor: Tensor | None) -> tuple[int, int]:
    return (
        (0, 0)
        if tensor is None
        else (tensor.data_ptr(), tensor.stride(0) if tensor.size(0) > 1 else tensor.size(1))
    )


def _sizes(
    cell: str, w_ih: Tensor, w_hh: Tensor, w_hr: Tensor | None, precision: Precision
) -> tuple[int, int, int, int, int]:
    """The first arguments of every packing function."""
    hidden, projection = (w_hh.size(1), 0) if w_hr is None else (w_hr.size(1), w_hr.size(0))
    return CELLS[cell], arithmetic(w_ih.dtype, precision), w_ih.size(1), hidden, projection


def arithmetic(dtype: torch.dtype, precision: Precision) -> int:
    """The `padless_dtype` of products: one for float64, and narrow dtypes are computed as float32."""
    return DTYPES[dtype] if dtype == torch.float64 else PRECISIONS[precision]


def computes(precision: Precision) -> bool:
    """Whether the instruction set in use has kernels for this precision."""
    return computes_dtype(PRECISIONS[precision])


def _widened(tensor: Tensor | None) -> Tensor | None:
    return None if tensor is None else tensor.float()


def pack_forward(
    cell: str,
    w_ih: Tensor,
    w_hh: Tensor,
    b_ih: Tensor | None,
    b_hh: Tensor | None,
    w_hr: Tensor | None = None,
    *,
    precision: Precision = "highest",
) -> Tensor:
    """Pack weights (contiguous, torch's layout) for the forward kernels: inference, training and recomputation."""
    if w_ih.dtype == torch.float16:  # the kernels do not read it
        w_ih, w_hh, b_ih, b_hh, w_hr = map(_widened, (w_ih, w_hh, b_ih, b_hh, w_hr))  # type: ignore[assignment]
    library, sizes, narrow = load(), _sizes(cell, w_ih, w_hh, w_hr, precision), w_ih.dtype == torch.bfloat16
    packed = _new_bytes(library.padless_pack_forward_bytes(*sizes))
    weights = (_pointer(w_ih), _pointer(w_hh), _pointer(b_ih), _pointer(b_hh), _pointer(w_hr))
    check(library.padless_pack_forward(*sizes, *weights, narrow, packed.data_ptr()), "pack")
    return packed


def pack_backward(
    cell: str, w_ih: Tensor, w_hh: Tensor, w_hr: Tensor | None = None, *, precision: Precision = "highest"
) -> Tensor:
    """Pack weights (contiguous, torch's layout) for the backward kernels."""
    if w_ih.dtype == torch.float16:
        w_ih, w_hh, w_hr = map(_widened, (w_ih, w_hh, w_hr))  # type: ignore[assignment]
    library, sizes, narrow = load(), _sizes(cell, w_ih, w_hh, w_hr, precision), w_ih.dtype == torch.bfloat16
    packed = _new_bytes(library.padless_pack_backward_bytes(*sizes))
    weights = (_pointer(w_ih), _pointer(w_hh), _pointer(w_hr))
    check(library.padless_pack_backward(*sizes, *weights, narrow, packed.data_ptr()), "pack")
    return packed


def fingerprint(tensor: Tensor) -> int:
    """64-bit hash of a contiguous tensor's contents, as fast as reading them."""
    return load().padless_fingerprint(tensor.data_ptr(), tensor.nbytes)


def empty(like: Tensor, rows: int, width: int, dtype: torch.dtype | None = None) -> Tensor:
    """New uninitialised tensor `(rows, width)`, on large pages if it is large.

    The first access to small pages takes a third of a training step on 300,000 rows of 64.
    """
    return prefer_large_pages(like.new_empty(rows, width, dtype=dtype))


def _new_bytes(size: int) -> Tensor:
    """New bytes on the CPU, whatever torch's default device is.

    Raises:
        BackendError: `size` is that of a layer with sizes or a precision that the kernels do not have.
    """
    if size < 0:
        raise BackendError("native pack: I can be up to 2**30, H and the projected width up to 2**20")
    return prefer_large_pages(torch.empty(size, dtype=torch.uint8, device="cpu"))


def _run(name: str, problem: Problem) -> None:
    library = load()
    at = ctypes.addressof(problem)
    size = library.padless_scratch_bytes(at, name == "backward")
    if size < 0:  # the call itself finds and reports the error
        size = 0
    scratch = torch.empty(size + 64, dtype=torch.uint8, device="cpu")
    problem.scratch, problem.scratch_bytes = (scratch.data_ptr() + 63) & -64, size
    run = library.padless_backward if name == "backward" else library.padless_forward
    check(run(at), name)


def _problem(
    cell: str,
    batch_sizes: Tensor,
    batch: int,
    rows: int,
    x: Rows,
    y: Rows,
    state_index: Tensor | None,
    initial: States,
    gates: Tensor | None,
    cells: Tensor | None,
    hidden: int | None,
    reverse: bool,
    threads: int,
    precision: Precision,
) -> Problem:
    """A problem with the fields that forward and backward have in common."""
    y_rows, y_width = y.data.shape
    problem = Problem()  # attributes, since keywords cost 2 us more
    problem.cell, problem.dtype = CELLS[cell], arithmetic(x.data.dtype, precision)
    problem.reverse, problem.threads = reverse, threads
    problem.batch = problem.state_rows = batch
    problem.rows, problem.steps, problem.batch_sizes = rows, batch_sizes.size(0), batch_sizes.data_ptr()
    problem.input_size, problem.hidden_size = x.data.size(1), hidden or y_width
    problem.projection_size = y_width if hidden else 0
    problem.x, problem.x_stride = _pointer_and_stride(x.data)
    problem.x_rows, problem.x_step, problem.x_sequence = (
        x.data.size(0),
        _pointer(x.step),
        _pointer(x.sequence),
    )
    problem.y, problem.y_stride = _pointer_and_stride(y.data)
    problem.y_rows, problem.y_step, problem.y_sequence = y_rows, _pointer(y.step), _pointer(y.sequence)
    problem.state_index = _pointer(state_index)
    problem.h0, problem.h0_stride = _pointer_and_stride(initial.h)
    problem.c0, problem.c0_stride = _pointer_and_stride(initial.c)
    problem.gates, problem.gates_bytes = _pointer_and_bytes(gates)
    problem.cells, problem.cells_bytes = _pointer_and_bytes(cells)
    problem.narrow_x = x.data.dtype == torch.bfloat16
    problem.narrow_y = _is_narrow(y.data, x.data)
    problem.narrow_gates = gates is not None and gates.dtype == torch.bfloat16
    return problem


def _is_narrow(output: Tensor, rows: Tensor) -> bool:
    """Whether the output is bfloat16.

    Raises:
        BackendError: it has a dtype that the kernels do not write for such rows.
    """
    wide = wide_dtype(rows.dtype)
    if output.dtype is wide:
        return False
    if wide is not torch.float32 or output.dtype is not torch.bfloat16:
        raise BackendError(f"the output of {rows.dtype} rows must be bfloat16 or {wide}, got {output.dtype}")
    return True


def _are_narrow(rows: Tensor, *states: States) -> bool:
    """Whether all these states are bfloat16.

    Raises:
        BackendError: they have several dtypes, or one that the kernels do not read.
    """
    dtypes = {t.dtype for pair in states for t in pair if t is not None}
    wide = wide_dtype(rows.dtype)
    if dtypes <= {wide}:
        return False
    if wide != torch.float32 or dtypes != {torch.bfloat16}:
        raise BackendError(f"all states must be bfloat16, or all {wide}, got {sorted(map(str, dtypes))}")
    return True


def _pointer_and_bytes(tensor: Tensor | None) -> tuple[int, int]:
    return (0, 0) if tensor is None else (tensor.data_ptr(), tensor.nbytes)


def forward(
    cell: str,
    packed: Tensor,
    x: Rows,
    y: Rows,
    batch_sizes: Tensor,
    rows: int,
    *,
    state_rows: int,
    state_index: Tensor | None = None,
    initial: States = _NO_STATES,
    final: States = _NO_STATES,
    gates: Tensor | None = None,
    cells: Tensor | None = None,
    hidden: int | None = None,
    reverse: bool = False,
    threads: int = 1,
    precision: Precision = "highest",
) -> None:
    """Run one layer in one direction: write `y` and `final`, and for training `gates` and `cells`.

    Args:
        packed: from `pack_forward`, packed for the instruction set in use.
        x, y: see `Rows`; y's data is `(rows, P)`, possibly half of a wider buffer.
        batch_sizes: (T,) int64, contiguous, on the CPU, non-increasing; sums to `rows`.
        state_rows: B, the number of rows of each state tensor.
        state_index: (B,) int64, the row of slot b in every state tensor; None: row b.
        gates: `(rows, saved_width)` to save for backward, of `gates_dtype`; None in inference, or to recompute them
            later.
        cells: `(rows, cells_width)` for an LSTM, whenever backward follows.
        hidden: H if y is a projection of the hidden units; None: they are y.
        precision: how float32 numbers are multiplied, one of `PRECISIONS` that the machine `computes`. With "highest"
            and "medium" x, y and all states may each be bfloat16. Packed weights are for one precision.
    """
    problem = _problem(
        cell, batch_sizes, state_rows, rows, x, y, state_index, initial, gates, cells, hidden, reverse,
        threads, precision,
    )  # fmt: skip
    problem.narrow_states = _are_narrow(x.data, initial, final)
    problem.h_n, problem.h_n_stride = _pointer_and_stride(final.h)
    problem.c_n, problem.c_n_stride = _pointer_and_stride(final.c)
    problem.forward_weights, problem.forward_weights_bytes = _pointer_and_bytes(packed)
    _run("forward", problem)


def backward(
    cell: str,
    packed: Tensor,
    x: Rows,
    y: Rows,
    batch_sizes: Tensor,
    rows: int,
    *,
    state_rows: int,
    state_index: Tensor | None = None,
    initial: States = _NO_STATES,
    gates: Tensor | None = None,
    cells: Tensor | None = None,
    packed_forward: Tensor | None = None,
    dy: Tensor | None = None,
    d_final: States = _NO_STATES,
    d_initial: States = _NO_STATES,
    dx: Tensor | None = None,
    dw_ih: Tensor | None = None,
    dw_hh: Tensor | None = None,
    db_ih: Tensor | None = None,
    db_hh: Tensor | None = None,
    dw_hr: Tensor | None = None,
    hidden: int | None = None,
    reverse: bool = False,
    threads: int = 1,
    precision: Precision = "highest",
) -> None:
    """Compute the gradients of one layer in one direction; only those with a tensor to write to.

    Args:
        packed: from `pack_backward`; x, y, batch_sizes, states: as in `forward`, y with its values.
        gates, cells: as `forward` saved them. If gates is None, they are recomputed with `packed_forward`.
        dy: addressed like y, `(y rows, P)`; None: zeros. `d_final` likewise.
        dx: addressed like x; only addressed rows are written. Weight gradients are contiguous and overwritten.
        hidden: as in `forward`.
    """
    problem = _problem(
        cell, batch_sizes, state_rows, rows, x, y, state_index, initial, gates, cells, hidden, reverse,
        threads, precision,
    )  # fmt: skip
    problem.forward_weights, problem.forward_weights_bytes = _pointer_and_bytes(packed_forward)
    problem.backward_weights, problem.backward_weights_bytes = _pointer_and_bytes(packed)
    problem.dy, problem.dy_stride = _pointer_and_stride(dy)
    problem.narrow_states = _are_narrow(x.data, initial, d_final, d_initial)
    problem.dh_n, problem.dh_n_stride = _pointer_and_stride(d_final.h)
    problem.dc_n, problem.dc_n_stride = _pointer_and_stride(d_final.c)
    problem.dh0, problem.dh0_stride = _pointer_and_stride(d_initial.h)
    problem.dc0, problem.dc0_stride = _pointer_and_stride(d_initial.c)
    problem.dx, problem.dx_stride = _pointer_and_stride(dx)
    problem.dw_ih, problem.dw_hh, problem.dw_hr = _pointer(dw_ih), _pointer(dw_hh), _pointer(dw_hr)
    problem.db_ih, problem.db_hh = _pointer(db_ih), _pointer(db_hh)
    _run("backward", problem)

"""ctypes bindings of the C++ kernels: thin calls on tensors that were checked before; no autograd.

The C side (`csrc/padless.h`) checks every size, stride and offset again, and an error code becomes a `BackendError`.
A call is one layer in one direction. Rows are addressed, not moved: `Rows(data, step, sequence)` says that row
(t, slot) of a matrix is at `data[step[t] + sequence[slot]]`; without the two, rows are time-major.
"""

from __future__ import annotations

import ctypes
import os
import sys
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from ..errors import BackendError

__all__ = [
    "CELLS",
    "DTYPES",
    "GATES",
    "NARROW_DTYPES",
    "Problem",
    "Rows",
    "States",
    "assume_l2_bytes",
    "backward",
    "cells_width",
    "check",
    "compiled_isas",
    "empty",
    "fingerprint",
    "force_isa",
    "forward",
    "isa",
    "load",
    "missing",
    "pack_backward",
    "pack_forward",
    "prefer_large_pages",
    "saved_width",
    "supported_isas",
    "threads_for",
]

CELLS = {"LSTM": 0, "GRU": 1, "RNN_TANH": 2, "RNN_RELU": 3}
DTYPES = {torch.float32: 0, torch.float64: 1}
# How float32 numbers are multiplied, as `padless_dtype` numbers it, by torch's names of the precisions.
PRECISIONS = {"highest": 0, "high": 3, "medium": 2}
# Rows and weights of these are widened to float32.
NARROW_DTYPES = frozenset({torch.bfloat16, torch.float16})
_ABI = 4
_FIELDS = [
    "cell", "dtype", "reverse", "threads", "batch", "rows", "steps", "input_size", "hidden_size",
    "batch_sizes", "x", "x_rows", "x_stride", "x_step", "x_sequence", "y", "y_rows", "y_stride",
    "y_step", "y_sequence", "state_index", "state_rows", "h0", "h0_stride", "c0", "c0_stride", "h_n",
    "h_n_stride", "c_n", "c_n_stride", "forward_weights", "forward_weights_bytes", "backward_weights",
    "backward_weights_bytes", "gates", "gates_bytes", "cells", "cells_bytes", "scratch",
    "scratch_bytes", "dy", "dy_stride", "dh_n", "dh_n_stride", "dc_n", "dc_n_stride", "dh0",
    "dh0_stride", "dc0", "dc0_stride", "dx", "dx_stride", "dw_ih", "dw_hh", "db_ih", "db_hh",
    "projection_size", "dw_hr", "narrow_rows", "narrow_gates",
    "w_ih", "w_hh", "b_ih", "b_hh",
]  # fmt: skip


class Problem(ctypes.Structure):
    """`padless_problem` of `csrc/padless.h`: one layer in one direction. Pointers are their addresses, 0 is null."""

    _fields_ = [(name, ctypes.c_int64) for name in _FIELDS]


_SUFFIX = {"win32": ".dll", "darwin": ".dylib"}.get(sys.platform, ".so")

GATES = {"LSTM": 4, "GRU": 3, "RNN_TANH": 1, "RNN_RELU": 1}
# Multiplications, some 30 us of them, below which a second thread may cost more than it saves.
_WORTH_A_TEAM = 1 << 21

_library: ctypes.CDLL | None = None
_computed: dict[str, bool] = {}  # precisions of the instruction set in use
_forked = False


def _note_fork() -> None:
    global _forked
    _forked = True


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_note_fork)


class Rows(NamedTuple):
    """A matrix whose row (t, slot) is at `data[step[t] + sequence[slot]]`."""

    data: Tensor  # (rows, width), unit column stride, row stride at least the width
    step: Tensor | None = None  # (T,) int64, contiguous; None with sequence: time-major
    sequence: Tensor | None = None  # (B,) int64, contiguous


class States(NamedTuple):
    """Pointers into state tensors `(rows, P)`, `(rows, H)` with unit column stride; None is zeros, or not wanted."""

    h: Tensor | None = None
    c: Tensor | None = None


_NO_STATES = States()


def load() -> ctypes.CDLL:
    """The library, loaded and declared on first use.

    Raises:
        BackendError: it was not built, is another version, or `PADLESS_ISA` names a set that is not available.
    """
    global _library
    if _library is None:
        path = Path(__file__).with_name(f"libpadless_kernels{_SUFFIX}")
        if not path.exists():
            raise BackendError(f"this build has no native kernels: {path} is missing")
        try:
            library = ctypes.CDLL(str(path))
        except OSError as error:
            raise BackendError(f"the native kernels cannot be loaded: {error}") from error
        _declare(library)
        if library.padless_abi_version() != _ABI or library.padless_problem_bytes() != ctypes.sizeof(Problem):
            raise BackendError(f"{path} is of another version of padless; install padless again")
        _library = library
        name = os.environ.get("PADLESS_ISA")
        if name:
            try:
                force_isa(name)
            except BackendError:
                _library = None
                raise
    return _library


def missing() -> str | None:
    """Why the kernels are not available here, or None.

    Raises:
        BackendError: `PADLESS_ISA` forces an instruction set that is not available.
    """
    try:
        load()
    except BackendError as error:
        if os.environ.get("PADLESS_ISA"):
            raise
        return str(error)
    return None


def _declare(library: ctypes.CDLL) -> None:
    integer, pointer, text, size = ctypes.c_int, ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int64
    for name, result, arguments in (
        ("abi_version", size, ()),
        ("problem_bytes", size, ()),
        ("error_text", text, (integer,)),
        ("isa_active", text, ()),
        ("isa_compiled", text, (integer,)),
        ("isa_supported", integer, (text,)),
        ("computes", integer, (integer,)),
        ("isa_force", integer, (text,)),
        ("pack_forward_bytes", size, (size,) * 5),
        ("pack_backward_bytes", size, (size,) * 5),
        ("pack_forward", integer, (size,) * 5 + (pointer,) * 6),
        ("pack_backward", integer, (size,) * 5 + (pointer,) * 4),
        ("saved_width", size, (size,) * 2),
        ("cells_width", size, (size,) * 2),
        ("scratch_bytes", size, (pointer, integer)),
        ("forward", integer, (pointer,)),
        ("backward", integer, (pointer,)),
        ("fingerprint", ctypes.c_uint64, (pointer, size)),
        ("advise_large_pages", None, (pointer, size)),
        ("assume_l2_bytes", None, (size,)),
        ("sigmoid", integer, (size, pointer, pointer, size)),
        ("tanh", integer, (size, pointer, pointer, size)),
    ):
        function = getattr(library, f"padless_{name}")
        function.restype, function.argtypes = result, arguments


def check(code: int, call: str) -> None:
    """Raise BackendError unless a call of the library returned 0."""
    if code:
        raise BackendError(f"native {call}: {load().padless_error_text(code).decode()}")


def isa() -> str:
    """Name of the instruction set in use."""
    return load().padless_isa_active().decode()


def compiled_isas() -> tuple[str, ...]:
    """Instruction sets in this build, from the plainest to the widest."""
    library, names = load(), []
    while name := library.padless_isa_compiled(len(names)):
        names.append(name.decode())
    return tuple(names)


def supported_isas() -> tuple[str, ...]:
    """Those that this machine can run; "..._emulated" are for tests and never chosen but by name."""
    return tuple(name for name in compiled_isas() if load().padless_isa_supported(name.encode()))


def force_isa(name: str | None) -> None:
    """Take this instruction set from now on; None: the best there is. Weights are packed per set: pack again."""
    library = load()
    _computed.clear()
    if library.padless_isa_force(None if name is None else name.encode()):
        runs = [each for each in supported_isas() if not each.endswith("_emulated")]
        raise BackendError(
            f"instruction set {name!r} is not available here; this machine runs {', '.join(runs)}"
        )


def assume_l2_bytes(size: int) -> None:
    """Prefetch weights as if a core's second-level cache had this size (0: its own); for tests and measurements."""
    load().padless_assume_l2_bytes(size)


def threads_for(cell: str, rows: int, input_size: int, hidden: int, output: int | None = None) -> int:
    """Threads for one call: torch's number; 1 for little work, and in a forked process.

    `output` is the width of h where a projection gives it. OpenMP's threads do not survive a fork, and a
    child that asks for them waits for ever.
    """
    work = GATES[cell] * hidden * (input_size + (output or hidden)) + hidden * (output or 0)
    if _forked or rows * work < _WORTH_A_TEAM:
        return 1
    return torch.get_num_threads()


def saved_width(cell: str, hidden: int) -> int:
    """Elements a row of saved gates; 0 where the cell saves none."""
    return load().padless_saved_width(CELLS[cell], hidden)


def cells_width(cell: str, hidden: int) -> int:
    """Elements a row of saved cells; 0 for all but LSTM."""
    return load().padless_cells_width(CELLS[cell], hidden)


def _pointer(tensor: Tensor | None) -> int:
    return 0 if tensor is None else tensor.data_ptr()


def _matrix(tensor: Tensor | None) -> tuple[int, int]:
    """Pointer and row stride."""
    return (
        (0, 0)
        if tensor is None
        else (tensor.data_ptr(), tensor.stride(0) if tensor.size(0) > 1 else tensor.size(1))
    )


def _sizes(
    cell: str, w_ih: Tensor, w_hh: Tensor, w_hr: Tensor | None, precision: str
) -> tuple[int, int, int, int, int]:
    """The leading arguments of every packing function."""
    hidden, projection = (w_hh.size(1), 0) if w_hr is None else (w_hr.size(1), w_hr.size(0))
    return CELLS[cell], _arithmetic(w_ih.dtype, precision), w_ih.size(1), hidden, projection


def _arithmetic(dtype: torch.dtype, precision: str) -> int:
    """`padless_dtype`: float64 has one only, and narrow rows are taken as float32."""
    return DTYPES[dtype] if dtype == torch.float64 else PRECISIONS[precision]


def computes(precision: str) -> bool:
    """Whether the instruction set in use has the kernels of this precision."""
    if precision not in _computed:  # asked by every call of a layer
        _computed[precision] = bool(load().padless_computes(PRECISIONS[precision]))
    return _computed[precision]


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
    precision: str = "highest",
) -> Tensor:
    """Weights (contiguous, torch's layout) as the kernels read them, for inference, training and recomputation."""
    if w_ih.dtype in NARROW_DTYPES:
        w_ih, w_hh, b_ih, b_hh, w_hr = map(_widened, (w_ih, w_hh, b_ih, b_hh, w_hr))  # type: ignore[assignment]
    library, sizes = load(), _sizes(cell, w_ih, w_hh, w_hr, precision)
    packed = torch.empty(library.padless_pack_forward_bytes(*sizes), dtype=torch.uint8)
    weights = (_pointer(w_ih), _pointer(w_hh), _pointer(b_ih), _pointer(b_hh), _pointer(w_hr))
    check(library.padless_pack_forward(*sizes, *weights, packed.data_ptr()), "pack")
    return packed


def pack_backward(
    cell: str, w_ih: Tensor, w_hh: Tensor, w_hr: Tensor | None = None, *, precision: str = "highest"
) -> Tensor:
    """Weights (contiguous, torch's layout) as the backward pass reads them."""
    if w_ih.dtype in NARROW_DTYPES:
        w_ih, w_hh, w_hr = map(_widened, (w_ih, w_hh, w_hr))  # type: ignore[assignment]
    library, sizes = load(), _sizes(cell, w_ih, w_hh, w_hr, precision)
    packed = torch.empty(library.padless_pack_backward_bytes(*sizes), dtype=torch.uint8)
    weights = (_pointer(w_ih), _pointer(w_hh), _pointer(w_hr))
    check(library.padless_pack_backward(*sizes, *weights, packed.data_ptr()), "pack")
    return packed


def fingerprint(tensor: Tensor) -> int:
    """64 bits of a contiguous tensor's contents, at the speed of reading them."""
    return load().padless_fingerprint(tensor.data_ptr(), tensor.nbytes)


def empty(like: Tensor, rows: int, width: int, dtype: torch.dtype | None = None) -> Tensor:
    """`(rows, width)` uninitialised, on large pages where it is large.

    The first touch of small pages takes a third of a training step on 300,000 rows of 64.
    """
    return prefer_large_pages(like.new_empty(rows, width, dtype=dtype))


def prefer_large_pages(new: Tensor) -> Tensor:
    """The tensor, contiguous and not yet written, on large pages where it is large."""
    if new.nbytes >= 4 << 20:
        load().padless_advise_large_pages(new.data_ptr(), new.nbytes)
    return new


def _run(name: str, problem: Problem) -> None:
    library = load()
    at = ctypes.addressof(problem)
    size = library.padless_scratch_bytes(at, name == "backward")
    if size < 0:  # the call itself finds and names the error
        size = 0
    scratch = torch.empty(size + 64, dtype=torch.uint8)
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
    precision: str,
) -> Problem:
    """What forward and backward have in common, in the order of the fields."""
    y_rows, y_width = y.data.shape
    x_pointer, x_stride = _matrix(x.data)
    y_pointer, y_stride = _matrix(y.data)
    problem = Problem(
        CELLS[cell], _arithmetic(x.data.dtype, precision), reverse, threads, batch, rows, batch_sizes.size(0),
        x.data.size(1), hidden or y_width, batch_sizes.data_ptr(),
        x_pointer, x.data.size(0), x_stride, _pointer(x.step), _pointer(x.sequence),
        y_pointer, y_rows, y_stride, _pointer(y.step), _pointer(y.sequence),
        _pointer(state_index), batch, *_matrix(initial.h), *_matrix(initial.c),
    )  # fmt: skip
    problem.gates, problem.gates_bytes = _bytes(gates)
    problem.cells, problem.cells_bytes = _bytes(cells)
    problem.projection_size = y_width if hidden else 0
    problem.narrow_rows = x.data.dtype == torch.bfloat16
    problem.narrow_gates = gates is not None and gates.dtype == torch.bfloat16
    return problem


def _bytes(tensor: Tensor | None) -> tuple[int, int]:
    """Pointer and size."""
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
    precision: str = "highest",
) -> None:
    """Run one layer in one direction; writes `y` and `final`, and for training `gates` and `cells`.

    Args:
        packed: from `pack_forward`, under the instruction set in use.
        x, y: see `Rows`; y's data is `(rows, P)`, possibly half of a wider buffer.
        batch_sizes: (T,) int64, contiguous, on the CPU, not growing; sums to `rows`.
        state_rows: B, and the rows that each state tensor holds.
        state_index: (B,) int64, the row of slot b in every state tensor; None: b.
        gates: `(rows, saved_width)` to save for backward, also bfloat16 with precision "medium";
            None in inference, or to recompute them later.
        cells: `(rows, cells_width)`, LSTM, wherever backward follows.
        hidden: H where y is a projection of the hidden units; None: they are y.
        precision: how float32 numbers are multiplied, one of `PRECISIONS`; one that the machine `computes`, and only
            with "medium" may x and y be bfloat16. Everything else is float32, and packed weights are for one precision.
    """
    problem = _problem(
        cell, batch_sizes, state_rows, rows, x, y, state_index, initial, gates, cells, hidden, reverse,
        threads, precision,
    )  # fmt: skip
    problem.h_n, problem.h_n_stride = _matrix(final.h)
    problem.c_n, problem.c_n_stride = _matrix(final.c)
    problem.forward_weights, problem.forward_weights_bytes = _bytes(packed)
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
    precision: str = "highest",
) -> None:
    """Gradients of one layer in one direction, each written where a tensor is given for it.

    Args:
        packed: from `pack_backward`; x, y, batch_sizes, states: as they were in `forward`, y with its values.
        gates, cells: as `forward` saved them. Without gates they are computed again, with `packed_forward`.
        dy: addressed as y, `(y rows, P)`; None: zeros. `d_final` likewise.
        dx: addressed as x; only addressed rows are written. Weight gradients are contiguous and overwritten.
        hidden: as in `forward`.
    """
    problem = _problem(
        cell, batch_sizes, state_rows, rows, x, y, state_index, initial, gates, cells, hidden, reverse,
        threads, precision,
    )  # fmt: skip
    problem.forward_weights, problem.forward_weights_bytes = _bytes(packed_forward)
    problem.backward_weights, problem.backward_weights_bytes = _bytes(packed)
    problem.dy, problem.dy_stride = _matrix(dy)
    problem.dh_n, problem.dh_n_stride = _matrix(d_final.h)
    problem.dc_n, problem.dc_n_stride = _matrix(d_final.c)
    problem.dh0, problem.dh0_stride = _matrix(d_initial.h)
    problem.dc0, problem.dc0_stride = _matrix(d_initial.c)
    problem.dx, problem.dx_stride = _matrix(dx)
    problem.dw_ih, problem.dw_hh, problem.dw_hr = _pointer(dw_ih), _pointer(dw_hh), _pointer(dw_hr)
    problem.db_ih, problem.db_hh = _pointer(db_ih), _pointer(db_hh)
    _run("backward", problem)

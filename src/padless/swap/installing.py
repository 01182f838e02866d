"""`install`: runs torch's recurrent operators on padless in the whole process; `uninstall` undoes it.

torch has one kernel for these operators, which calls other operators (CompositeImplicitAutograd). Kernels registered
for CPU tensors take precedence over it for every caller: a module, a subclass, TorchScript, `torch.lstm`. Calls that
padless does not support are passed on to torch's kernel.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch._C._functorch import peek_interpreter_stack

from ..backends import choose
from ..backends.autograd import is_traced
from ..backends.contract import Cell
from ..layout.checks import check_batch_sizes, check_state, check_weights
from ..layout.schedule import Schedule, copied
from ..nn._kinds import Batch, in_time_major, open_grid
from ..nn._weights import weight_shapes
from ..recurrent import Options, reads_in_place, run

__all__ = ["install", "uninstall"]

_OPERATORS: dict[str, Cell] = {
    "lstm": "LSTM",
    "gru": "GRU",
    "rnn_tanh": "RNN_TANH",
    "rnn_relu": "RNN_RELU",
}
_GATES = {"LSTM": 4, "GRU": 3}

_library: torch.library.Library | None = None


class install:  # noqa: N801 - called like a function, like torch.no_grad
    """Run every torch RNN, LSTM and GRU on CPU tensors in this process on padless.

    Models need no change: subclasses, scripted modules and calls of `torch.lstm` run on padless too, in float32
    and float64. Everything else, including autocast, `torch.func` and tracing, stays with torch's own kernels.
    Installing twice has no effect. As a context manager, `with install(): ...` restores the previous state at the
    end.

    >>> layer = torch.nn.GRU(3, 4)
    >>> with install():
    ...     output, _ = layer(torch.randn(5, 2, 3))  # one node in the graph instead of one per step and gate
    >>> uninstall()
    """

    def __init__(self) -> None:
        global _library
        self._library: torch.library.Library | None = None  # registered by this call
        if _library is not None:
            return
        library = torch.library.Library("aten", "IMPL")
        for name, cell in _OPERATORS.items():
            for overload, kernel in (
                ("data", _packed_kernel(name, cell)),
                ("input", _padded_kernel(name, cell)),
            ):
                for key in ("AutogradCPU", "CPU"):  # inference mode uses the second
                    library.impl(f"{name}.{overload}", kernel, key)
        _library = self._library = library

    def __enter__(self) -> install:
        return self

    def __exit__(self, *exception: Any) -> None:
        # If `uninstall` ran in between, the current installation belongs to another call.
        if self._library is not None and self._library is _library:
            uninstall()


def uninstall() -> None:
    """Restore torch's own kernels; no effect if padless is not installed."""
    global _library
    if _library is not None:
        _library._destroy()
        _library = None


def _packed_kernel(name: str, cell: Cell) -> Callable[..., tuple[Tensor, ...]]:
    torchs_own = _torchs_own(getattr(torch.ops.aten, name).data)

    def kernel(
        data: Tensor, batch_sizes: Tensor, hx: Any, params: list[Tensor], *network: Any
    ) -> tuple[Tensor, ...]:
        options = _options(cell, params, *network)
        if not _computes(data, hx, params, options):
            return torchs_own(data, batch_sizes, hx, params, *network)
        if data.dim() != 2:
            raise RuntimeError(f"input must have 2 dimensions, got {data.dim()}")
        slots = check_batch_sizes(batch_sizes, rows=data.shape[0])
        schedule = Schedule(copied(batch_sizes), rows=data.shape[0], slots=slots)
        batch = Batch(data, schedule, lambda output: output)
        return _run(batch, hx, params, options)

    return kernel


def _padded_kernel(name: str, cell: Cell) -> Callable[..., tuple[Tensor, ...]]:
    torchs_own = _torchs_own(getattr(torch.ops.aten, name).input)

    def kernel(input: Tensor, hx: Any, params: list[Tensor], *arguments: Any) -> tuple[Tensor, ...]:
        *network, batch_first = arguments
        options = _options(cell, params, *network)
        if (
            input.dim() != 3
            or not _computes(input, hx, params, options)
            or _is_faster_in_torch(input, options)
        ):
            return torchs_own(input, hx, params, *arguments)
        return _run(open_grid(input, batch_first=batch_first), hx, params, options)

    return kernel


def _torchs_own(operator: Any) -> Callable[..., tuple[Tensor, ...]]:
    """Torch's own kernel of an operator, whatever else is registered."""
    # Not operator.decompose, which prefers the Python decompositions meant for tracing.
    return partial(operator._op_dk, torch._C.DispatchKey.CompositeImplicitAutograd)  # type: ignore[attr-defined]


def _options(
    cell: Cell,
    params: Sequence[Tensor],
    has_biases: bool,
    num_layers: int,
    dropout: float,
    train: bool,
    bidirectional: bool,
) -> Options:
    """The network described by an operator's arguments after `params`, in torch's order."""
    places = num_layers * (2 if bidirectional else 1)
    projected = cell == "LSTM" and len(params) == places * (5 if has_biases else 3)
    return Options(cell, num_layers, has_biases, dropout, train, bidirectional, projected)


def _computes(rows: Tensor, hx: Any, params: Sequence[Tensor], options: Options) -> bool:
    """Whether padless computes a call; torch's own kernel handles the others and raises their errors."""
    places = options.num_layers * options.directions
    count = (4 if options.bias else 2) + (1 if options.projected else 0)
    return (
        rows.dtype in (torch.float32, torch.float64)
        and rows.layout == torch.strided
        and len(params) == places * count
        and (options.cell != "LSTM" or len(hx) == 2)
        and all(p.dtype == rows.dtype and p.device == rows.device for p in params)
        and choose("cpu") != "torch"
        and not torch.is_autocast_enabled("cpu")
        and peek_interpreter_stack() is None
        and not is_traced(rows)
    )


def _is_faster_in_torch(input: Tensor, options: Options) -> bool:
    """Whether torch is faster: for a grid without padding and an LSTM, without native kernels, it uses oneDNN."""
    return options.cell == "LSTM" and not options.projected and choose("cpu") == "portable"


def _run(batch: Batch, hx: Any, params: list[Tensor], options: Options) -> tuple[Tensor, ...]:
    states = tuple(hx) if options.cell == "LSTM" else (hx,)
    hidden = params[0].shape[0] // _GATES.get(options.cell, 1)
    projected = params[1].shape[1] if options.projected else 0
    shapes = weight_shapes(
        options.cell,
        batch.rows.shape[1],
        hidden,
        projected,
        options.num_layers,
        options.bias,
        options.bidirectional,
    )
    check_weights(params, [f"params[{i}]" for i in range(len(params))], shapes, batch.rows.device)
    widths = (projected or hidden, hidden)[: len(states)]
    for i, (state, width) in enumerate(zip(states, widths, strict=True)):
        shape = (options.num_layers * options.directions, batch.schedule.batch, width)
        check_state(state, shape, batch.rows, f"hidden[{i}]" if len(states) == 2 else "hidden")
    if not reads_in_place(batch.rows, options):
        batch = in_time_major(batch)
    output, finals = run(batch.rows, batch.schedule, states, params, options)
    return batch.restore(output), *finals

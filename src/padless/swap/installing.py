"""`install`: runs torch's recurrent operators on padless in the whole process; `uninstall` undoes it.

torch has one kernel for these operators, which calls other operators (CompositeImplicitAutograd). Kernels registered
for CPU tensors take precedence over it for every caller: a module, a subclass, TorchScript, `torch.lstm`. Calls that
padless does not support are passed on to torch's kernel, and so are all calls after `uninstall`: the kernels stay
registered, since other threads may be on their way from torch's dispatcher to them, and nothing can wait for those.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from threading import Lock
from typing import Any

import torch
from torch import Tensor
from torch._C._dynamo import eval_frame as _eval_frame
from torch._C._functorch import peek_interpreter_stack

from ..backends import choose, is_forced, is_native
from ..backends._kernels import DTYPES, NARROW_DTYPES
from ..backends.autograd import is_traced
from ..backends.contract import GATES, Cell, weights_per_layer
from ..layout.checks import check_batch_sizes, check_state, check_weights
from ..layout.schedule import Schedule, copied
from ..nn._kinds import OpenBatch, in_time_major, open_grid
from ..nn._steps import (
    SHORT_ROWS,
    Network,
    infer,
    is_readable,
    prepared_layers,
    runs_kernels,
    train_step,
    trains_by_steps,
    trains_on_kernels,
)
from ..nn._weights import weight_shapes
from ..recurrent import Options, reads_in_place, run

__all__ = ["install", "uninstall"]

_OPERATORS: dict[str, Cell] = {
    "lstm": "LSTM",
    "gru": "GRU",
    "rnn_tanh": "RNN_TANH",
    "rnn_relu": "RNN_RELU",
}
_is_included = torch._C._dispatch_tls_is_dispatch_key_included
_PYTHON = torch._C.DispatchKey.PythonDispatcher

_library: torch.library.Library | None = None  # registered by the first `install`, and kept
_lock = Lock()
_holders = 0  # objects of `install` that have not been left; padless computes as long as there is one
_period = 0  # grows at each `uninstall`, after which the objects of before hold nothing


class install:  # noqa: N801 - called like a function, like torch.no_grad
    """Run every torch RNN, LSTM and GRU on CPU tensors in this process on padless.

    Models need no change: subclasses, scripted modules and calls of `torch.lstm` run on padless too, in float32,
    float64 and, with the native kernels, bfloat16 and float16. Torch's own kernels still run under
    autocast, `torch.func` and tracing, and where they are faster: an LSTM on a padded tensor, in bfloat16 if oneDNN
    supports it or in any dtype with the portable backend; and training a GRU or RNN over few steps.
    Installing twice has no effect. As a context manager, `with install(): ...` restores the previous state at the
    end, once no other thread is in such a block; the same object can be used for several blocks. Call it before other
    threads run such layers: the first call in a process changes torch's table of operators.

    >>> layer = torch.nn.GRU(3, 4)
    >>> with install():
    ...     output, _ = layer(torch.randn(5, 2, 3))  # one node in the graph instead of one per step and gate
    >>> uninstall()
    """

    def __init__(self) -> None:
        self._open = 0  # blocks
        self._period: int | None = None  # in which this object is one of the holders
        with _lock:
            _register()
            self._hold()

    def _hold(self) -> None:
        global _holders
        if self._period != _period:
            self._period = _period
            _holders += 1

    def __enter__(self) -> install:
        with _lock:
            self._open += 1
            self._hold()  # again, in a second block
        return self

    def __exit__(self, *exception: Any) -> None:
        global _holders
        with _lock:
            self._open = max(self._open - 1, 0)
            # If `uninstall` ran in between, the current installation belongs to another call.
            if self._open == 0 and self._period == _period:
                self._period = None
                _holders -= 1


def uninstall() -> None:
    """Restore torch's own kernels, also in blocks of other threads; no effect if padless is not installed."""
    global _holders, _period
    with _lock:
        _holders, _period = 0, _period + 1


def _register() -> None:
    """Register the kernels; they stay registered, and pass all calls on to torch while nothing is installed."""
    global _library
    if _library is not None:
        return
    library = torch.library.Library("aten", "IMPL")
    for name, cell in _OPERATORS.items():
        for overload, kernel in (
            ("data", _packed_kernel(name, cell)),
            ("input", _padded_kernel(name, cell)),
        ):
            library.impl(f"{name}.{overload}", _unseen_by_dynamo(kernel), "AutogradCPU")
            selected = _selected(kernel, getattr(getattr(torch.ops.aten, name), overload))
            library.impl(f"{name}.{overload}", _unseen_by_dynamo(selected), "BackendSelect", with_keyset=True)
    _library = library


def _unseen_by_dynamo(kernel: Callable[..., tuple[Tensor, ...]]) -> Callable[..., tuple[Tensor, ...]]:
    """The kernel, which Dynamo neither traces nor follows when a compiled model calls it after a graph break.

    Like `torch._dynamo.disable`, which would import Dynamo also in processes that do not compile.
    """
    set_strategy: Any = getattr(_eval_frame, "set_code_exec_strategy", None)  # not in every torch version
    if set_strategy is not None:
        skip = _eval_frame._FrameAction.SKIP  # type: ignore[attr-defined]
        set_strategy(kernel.__code__, _eval_frame._FrameExecStrategy(skip, skip))  # type: ignore[attr-defined]
    return kernel


def _selected(kernel: Callable[..., tuple[Tensor, ...]], operator: Any) -> Callable[..., tuple[Tensor, ...]]:
    """The kernel for inference mode, which passes by "AutogradCPU" and comes here on every device.

    A kernel for "CPU" would be seen by `torch.export`, which then does not decompose the operators.
    """
    select = torch._C.DispatchKey.BackendSelect

    def selected(keys: Any, rows: Tensor, *arguments: Any) -> tuple[Tensor, ...]:
        if _holders and rows.is_cpu:
            return kernel(rows, *arguments)
        return operator.redispatch(keys.remove(select), rows, *arguments)  # type: ignore[no-any-return]

    return selected


def _packed_kernel(name: str, cell: Cell) -> Callable[..., tuple[Tensor, ...]]:
    torchs_own = _torchs_own(getattr(torch.ops.aten, name).data)

    def kernel(
        data: Tensor, batch_sizes: Tensor, hx: Any, params: list[Tensor], *network: Any
    ) -> tuple[Tensor, ...]:
        if not _holders:
            return torchs_own(data, batch_sizes, hx, params, *network)
        steps, is_recorded = batch_sizes.shape[0], _is_recorded(data, hx, params)
        if _trains_in_torch(cell, steps, data.shape[0], data.dtype, is_recorded):
            return torchs_own(data, batch_sizes, hx, params, *network)
        if data.dim() == 2 and 0 < steps <= SHORT_ROWS and _are_equal(batch_sizes, data.shape[0]):
            short = _short(cell, data, steps, data.shape[0] // steps, hx, params, network, is_recorded)
            if short is not None:
                return short
        options = _options(cell, params, *network)
        if not _computes(data, hx, params, options):
            return torchs_own(data, batch_sizes, hx, params, *network)
        if data.dim() != 2:
            raise RuntimeError(f"input must have 2 dimensions, got {data.dim()}")
        slots = check_batch_sizes(batch_sizes, rows=data.shape[0])
        schedule = Schedule(copied(batch_sizes), rows=data.shape[0], slots=slots)
        batch = OpenBatch(data, schedule, lambda output: output)
        return _run(batch, hx, params, options)

    return kernel


def _padded_kernel(name: str, cell: Cell) -> Callable[..., tuple[Tensor, ...]]:
    torchs_own = _torchs_own(getattr(torch.ops.aten, name).input)

    def kernel(input: Tensor, hx: Any, params: list[Tensor], *arguments: Any) -> tuple[Tensor, ...]:
        *network, batch_first = arguments
        if not _holders or input.dim() != 3:
            return torchs_own(input, hx, params, *arguments)
        batch, steps = input.shape[:2] if batch_first else (input.shape[1], input.shape[0])
        is_recorded = _is_recorded(input, hx, params)
        if _trains_in_torch(cell, steps, batch, input.dtype, is_recorded):
            return torchs_own(input, hx, params, *arguments)
        if not batch_first or steps == 1 or batch == 1:  # rows are in the order of time
            short = _short(cell, input, steps, batch, hx, params, network, is_recorded)
            if short is not None:
                return short
        options = _options(cell, params, *network)
        if not _computes(input, hx, params, options) or _is_faster_in_torch(input, options):
            return torchs_own(input, hx, params, *arguments)
        return _run(open_grid(input, batch_first=batch_first), hx, params, options)

    return kernel


def _torchs_own(operator: Any) -> Callable[..., tuple[Tensor, ...]]:
    """Torch's own kernel of an operator, whatever else is registered."""
    composite = torch._C.DispatchKey.CompositeImplicitAutograd
    in_cpp = partial(operator._op_dk, composite)  # type: ignore[attr-defined]

    def torchs_own(*arguments: Any) -> tuple[Tensor, ...]:
        if _is_included(_PYTHON):  # tracing with symbolic sizes, for which torch has decompositions in Python
            return operator.decompose(*arguments)  # type: ignore[no-any-return]
        return in_cpp(*arguments)

    return torchs_own


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
    count = weights_per_layer(bias=has_biases, projected=True)
    projected = cell == "LSTM" and len(params) == places * count
    return Options(cell, num_layers, has_biases, dropout, train, bidirectional, projected)


def _computes(rows: Tensor, hx: Any, params: Sequence[Tensor], options: Options) -> bool:
    """Whether padless computes a call; torch's own kernel handles the others and raises their errors."""
    places = options.num_layers * options.directions
    count = weights_per_layer(bias=options.bias, projected=options.projected)
    return (
        (rows.dtype in DTYPES or (rows.dtype in NARROW_DTYPES and is_native()))
        and rows.layout == torch.strided
        and len(params) == places * count
        and (options.cell != "LSTM" or len(hx) == 2)
        and all(s.dtype == rows.dtype for s in _states_of(hx))
        and all(p.dtype == rows.dtype and p.device == rows.device for p in params)
        and choose("cpu") != "torch"
        and not torch.is_autocast_enabled("cpu")
        and peek_interpreter_stack() is None
        and not is_traced(rows)
    )


def _is_faster_in_torch(input: Tensor, options: Options) -> bool:
    """Whether torch is faster: for a grid without padding and an LSTM, it uses oneDNN.

    In bfloat16 that is as fast as the native kernels or faster, in float32 and float64 only than the portable backend.
    """
    if options.cell != "LSTM" or options.projected:
        return False
    if input.dtype is torch.bfloat16:
        mkldnn = torch.backends.mkldnn
        return mkldnn.is_available() and mkldnn.enabled and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return choose("cpu") == "portable"


def _is_recorded(rows: Tensor, hx: Any, params: Sequence[Tensor]) -> bool:
    return torch.is_grad_enabled() and any(t.requires_grad for t in (*params, rows, *_states_of(hx)))


def _states_of(hx: Any) -> Sequence[Tensor]:
    return (hx,) if isinstance(hx, Tensor) else hx


def _trains_in_torch(cell: Cell, steps: int, batch: int, dtype: torch.dtype, is_recorded: bool) -> bool:
    """Whether torch's own kernel takes the call: a training step of many rows of a GRU or RNN.

    There it calls the same cell functions as `nn._steps.train_step`. For an LSTM it calls oneDNN, which is slower.
    """
    if not is_recorded or cell == "LSTM" or not trains_by_steps(steps, dtype) or is_forced():
        return False
    return not trains_on_kernels(batch, dtype)


def _are_equal(batch_sizes: Tensor, rows: int) -> bool:
    """Whether every step has the same number of rows."""
    if batch_sizes.dtype != torch.int64 or not batch_sizes.is_cpu or batch_sizes.dim() != 1:
        return False
    sizes = batch_sizes.tolist()
    return sizes.count(sizes[0]) == len(sizes) and sizes[0] * len(sizes) == rows


def _short(
    cell: Cell,
    rows: Tensor,
    steps: int,
    batch: int,
    hx: Any,
    params: list[Tensor],
    network: Sequence[Any],
    is_recorded: bool,
) -> tuple[Tensor, ...] | None:
    """A small call without the work of the general path, or None where that has to compute or to find an error."""
    has_biases, num_layers, dropout, train, bidirectional = network
    is_lstm, dtype = cell == "LSTM", rows.dtype
    if (
        not 0 < steps * batch <= SHORT_ROWS
        or bidirectional
        or (dropout and train)
        or len(params)
        != num_layers * weights_per_layer(bias=has_biases, projected=False)  # a projection has more
        or params[1].dim() != 2
        or (is_recorded and (not trains_by_steps(steps, dtype) or is_forced()))
    ):
        return None
    hidden, states = params[1].shape[1], (tuple(hx) if is_lstm else (hx,))
    shape = (num_layers, batch, hidden)
    if len(states) != (2 if is_lstm else 1) or any(s.shape != shape or s.dtype != dtype for s in states):
        return None
    if any(not is_readable(t) or t.is_nested for t in (rows, *states)) or any(p.is_neg() for p in params):
        return None
    if not runs_kernels(rows):
        return None
    given = Network(cell, rows.shape[-1], hidden, num_layers, has_biases)
    prepared = prepared_layers(params[0], given, dtype, params)
    if prepared is None:
        return None
    if is_recorded:
        output, finals = train_step(given, rows, batch, states, params, (*rows.shape[:-1], hidden))
    else:
        output, finals = infer(prepared, rows, steps, batch, states, params, (*rows.shape[:-1], hidden))
    return output, *finals


def _run(batch: OpenBatch, hx: Any, params: list[Tensor], options: Options) -> tuple[Tensor, ...]:
    states = tuple(hx) if options.cell == "LSTM" else (hx,)
    hidden = params[0].shape[0] // GATES[options.cell]
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

"""The forward shared by the three layers: checks, input and output of any kind, states, autocast."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor
from torch.nn.modules.rnn import RNNBase
from torch.nn.utils.rnn import PackedSequence

from .. import backends
from ..backends import choose
from ..backends._precision import precision_of
from ..backends.autograd import is_autocasting, without_autocast
from ..backends.contract import Cell, States
from ..layout.checks import check_state, check_weights
from ..recurrent import Options, reads_in_place, run
from ._kinds import OpenBatch, in_time_major, open_input
from ._plain import infer_plain
from ._short import short_forward
from ._traced import run_traced, traced_batch
from ._weights import weight_shapes

__all__ = ["forward"]


def forward(module: RNNBase, input: Any, hx: Any, lengths: Any) -> tuple[Any, Any]:
    """The result of `module(input, hx, lengths=lengths)`."""
    if torch.compiler.is_compiling():
        return _traced_forward(module, input, hx, lengths)
    if lengths is None and ((torch._C._is_tracing() and _torch_accepts(input)) or _is_fake_grid(input)):
        # Traces contain torch's own operator, as with torch's layers, so they are also correct for other lengths.
        return _TORCH_LAYERS[module.mode].forward(module, input, hx)  # type: ignore[arg-type]
    if lengths is None:
        short = short_forward(module, input, hx)
        if short is not None:
            return short
    return _forward(module, input, hx, lengths)


_FAKE = torch._C._TorchDispatchModeKey.FAKE  # the mode in which tensors have shapes only
_TORCH_LAYERS: dict[str, Any] = {
    "LSTM": torch.nn.LSTM, "GRU": torch.nn.GRU, "RNN_TANH": torch.nn.RNN, "RNN_RELU": torch.nn.RNN,
}  # fmt: skip


def _torch_accepts(input: Any) -> bool:
    """Whether torch's layer accepts this input; it does not accept sequences of length 0."""
    if isinstance(input, PackedSequence):
        order = input.sorted_indices
        return order is None or len(order) == max(input.batch_sizes.tolist(), default=0)
    return isinstance(input, Tensor) and not input.is_nested


def _is_fake_grid(input: Any) -> bool:
    """Whether a padded tensor has no values, so that the kernels could not even read a length."""
    return (
        torch._C._get_dispatch_mode(_FAKE) is not None and isinstance(input, Tensor) and not input.is_nested
    )


def _traced_forward(module: RNNBase, input: Any, hx: Any, lengths: Any) -> tuple[Any, Any]:
    """`_forward` for tracing by `torch.compile` and `torch.export`, with `padless::layer` operators."""
    batch = traced_batch(module, input, lengths)
    states = _initial_states(module, batch.rows, batch.batch, hx, batch.is_padded, batch.is_unbatched)
    weights = [getattr(module, name) for name in module._flat_weights_names]

    def compute(
        rows: Tensor, states: States, output_dtype: torch.dtype | None = None
    ) -> tuple[Tensor, States]:
        return run_traced(module, batch._replace(rows=rows), states, weights, output_dtype)

    if is_autocasting(batch.rows.device.type):
        output, finals = _autocasted(compute, module, batch.rows, states, weights, is_padded=batch.is_padded)
    else:
        output, finals = compute(batch.rows, states)
    if batch.is_unbatched:
        finals = tuple(s.squeeze(1) for s in finals)
    return batch.restore(output), finals if module.mode == "LSTM" else finals[0]


def _forward(module: RNNBase, input: Any, hx: Any, lengths: Any) -> tuple[Any, Any]:
    _find_weights(module)
    batch = open_input(module, input, lengths)
    # The states of an unbatched input have two dimensions.
    inferred = (
        None if batch.is_unbatched and hx is not None else infer_plain(module, batch.rows, batch.schedule, hx)
    )
    if inferred is None:
        return _forward_rows(module, batch, hx)
    return _returned(module, batch, *inferred)


def _forward_rows(module: RNNBase, batch: OpenBatch, hx: Any) -> tuple[Any, Any]:
    """The layer's result for a checked input, by any backend."""
    states = _initial_states(
        module, batch.rows, batch.schedule.batch, hx, batch.is_padded, batch.is_unbatched
    )
    weights = _checked_weights(module, batch.rows)
    options = Options(
        cell=cast(Cell, module.mode),
        num_layers=module.num_layers,
        bias=module.bias,
        dropout=module.dropout,
        training=module.training,
        bidirectional=module.bidirectional,
        projected=module.proj_size > 0,
    )
    if batch.to_time_major is not None and not reads_in_place(batch.rows, options):
        batch = in_time_major(batch)
    device_type = batch.rows.device.type
    if is_autocasting(device_type) and choose(device_type) != "torch":
        schedule = batch.schedule

        def compute(rows: Tensor, states: States, output_dtype: torch.dtype | None) -> tuple[Tensor, States]:
            with without_autocast(device_type):
                return run(rows, schedule, states, weights, options._replace(output_dtype=output_dtype))

        output, finals = _autocasted(compute, module, batch.rows, states, weights, is_padded=batch.is_padded)
    else:
        output, finals = run(batch.rows, batch.schedule, states, weights, options)
    return _returned(module, batch, output, finals)


def _returned(module: RNNBase, batch: OpenBatch, output: Tensor, finals: States) -> tuple[Any, Any]:
    """Output rows and final states as the caller gets them."""
    if batch.is_unbatched:
        finals = tuple(s.squeeze(1) for s in finals)
    return batch.restore(output), finals if module.mode == "LSTM" else finals[0]


def _find_weights(module: RNNBase) -> None:
    """Update `module._flat_weights`, which the module also uses to check its input's dtype."""
    parameters = module._parameters
    for ref, name in zip(module._flat_weight_refs, module._flat_weights_names, strict=True):
        weight = parameters.get(name)
        if weight is None or ref is None or ref() is not weight:
            module._update_flat_weights()  # torch's own rule, which checks every attribute and takes four times as long
            return


def _checked_weights(module: RNNBase, rows: Tensor) -> list[Tensor]:
    weights = module._flat_weights
    shapes = weight_shapes(
        module.mode,
        module.input_size,
        module.hidden_size,
        module.proj_size,
        module.num_layers,
        module.bias,
        module.bidirectional,
    )
    check_weights(weights, module._flat_weights_names, shapes, rows.device)
    return cast("list[Tensor]", weights)


def _initial_states(
    module: RNNBase, rows: Tensor, batch: int, hx: Any, is_padded: bool, is_unbatched: bool
) -> States:
    """The states `(L*D, B, *)` in the caller's order, checked; zeros if not given."""
    places = module.num_layers * (2 if module.bidirectional else 1)
    widths = (module.proj_size or module.hidden_size, module.hidden_size)[: 2 if module.mode == "LSTM" else 1]
    shapes = [(places, batch, width) for width in widths]
    if hx is None:
        h0 = rows.new_zeros(shapes[0])
        return (h0,) if len(shapes) == 1 else (h0, h0 if shapes[1] == shapes[0] else h0.new_zeros(shapes[1]))
    given = _as_state_tuple(module.mode, hx)
    if is_padded:
        _check_state_dims(module.mode, given, is_unbatched=is_unbatched)
        if is_unbatched:
            given = tuple(s.unsqueeze(1) for s in given)
    any_dtype = is_autocasting(rows.device.type)
    for i, (state, shape) in enumerate(zip(given, shapes, strict=True)):
        name = f"hidden[{i}]" if module.mode == "LSTM" else "hidden"
        check_state(state, shape, rows, name, any_dtype=any_dtype)
    return given


def _as_state_tuple(mode: str, hx: Any) -> States:
    if _is_whole(hx):
        raise TypeError("hx must be initial states, got integers; pass lengths by keyword: lengths=...")
    if mode != "LSTM":
        if not isinstance(hx, Tensor):
            raise TypeError(f"hx must be a tensor (L*D, B, H), got {type(hx).__name__}")
        return (hx,)
    if isinstance(hx, Tensor) or not isinstance(hx, (tuple, list)) or len(hx) != 2:
        got = f"{len(hx)} of them" if isinstance(hx, (tuple, list)) else type(hx).__name__
        raise RuntimeError(f"hx must be two tensors (h0, c0) for an LSTM, got {got}")
    if not all(isinstance(s, Tensor) for s in hx):
        raise TypeError(f"hx must be two tensors (h0, c0), got {[type(s).__name__ for s in hx]}")
    return tuple(hx)


def _is_whole(hx: Any) -> bool:
    """Whether `hx` is a list or tensor of integers, as lengths are."""
    if isinstance(hx, Tensor):
        return hx.dim() == 1 and not hx.is_floating_point() and not hx.is_complex()
    return isinstance(hx, (list, tuple)) and bool(hx) and all(isinstance(n, int) for n in hx)


def _check_state_dims(mode: str, states: States, *, is_unbatched: bool) -> None:
    """Raise torch's own error for a state with the wrong number of dimensions for a padded input."""
    wanted = 2 if is_unbatched else 3
    if all(s.dim() == wanted for s in states):
        return
    kind = "unbatched 2-D" if is_unbatched else "batched 3-D"
    if mode == "LSTM":
        dims = f"({states[0].dim()}-D, {states[1].dim()}-D) tensors"
        raise RuntimeError(f"For {kind} input, hx and cx should also be {wanted}-D but got {dims}")
    raise RuntimeError(f"For {kind} input, hx should also be {wanted}-D but got {states[0].dim()}-D tensor")


def _autocasted(
    compute: Callable[[Tensor, States, torch.dtype | None], tuple[Tensor, States]],
    module: RNNBase,
    rows: Tensor,
    states: States,
    weights: list[Tensor],
    *,
    is_padded: bool,
) -> tuple[Tensor, States]:
    """`compute(rows, states, output_dtype)` with autocast's dtypes; output_dtype: None if products are not lowered."""
    device_type = rows.device.type
    low, full = torch.get_autocast_dtype(device_type), weights[0].dtype
    # `_forced.now` is read here so that Dynamo recompiles when it changes.
    lowers = full == torch.float32 and _lowers_products(device_type, low, backends._forced.now)
    output_dtype, *state_dtypes = _autocast_dtypes(
        cast(Cell, module.mode), low, is_padded=is_padded, projected=module.proj_size > 0
    )
    # The kernels round float32 rows when they read them: cheaper than a copy of the rows and one of their gradient.
    if not (lowers and rows.dtype == low):
        rows = _cast(rows, full)
    output, finals = compute(rows, tuple(_cast(s, full) for s in states), output_dtype if lowers else None)
    return _cast(output, output_dtype), tuple(_cast(s, d) for s, d in zip(finals, state_dtypes, strict=True))


def _cast(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    return tensor if tensor.dtype == dtype else tensor.to(dtype)  # `to` takes microseconds to do nothing


def _lowers_products(device_type: str, low: torch.dtype, forced: str | None) -> bool:
    """Whether autocast lowers the products of a float32 layer to its dtype; compiled: evaluated once for each `forced`.

    Kernels that multiply bfloat16 numbers round the weights when packing them; without such kernels float32 is as fast
    and more exact.
    """
    return low == torch.bfloat16 and choose(device_type) == "native" and precision_of(low) == "medium"


# What `torch.compiler.assume_constant_result` sets; calling it would import Dynamo.
_lowers_products._dynamo_marked_constant = True  # type: ignore[attr-defined]


def _autocast_dtypes(
    cell: Cell, low: torch.dtype, *, is_padded: bool, projected: bool
) -> tuple[torch.dtype, ...]:
    """Dtypes of output and states of torch's own layers on the CPU under autocast.

    Autocast lowers the products, and the operations after them mix dtypes: torch 2.13 returns low precision
    unless a float32 state takes part, and its padded LSTM (oneDNN) lowers everything.
    """
    full = torch.float32
    if cell == "LSTM":
        if projected:
            return low, low, full
        return (low, low, low) if is_padded else (full, full, full)
    return (full, full) if cell == "GRU" else (low, low)

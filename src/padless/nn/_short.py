"""Calls of one or a few steps: a short path from the module to the kernel, and the rule that selects it.

Such calls (decoding, streaming, rollouts) take some tens of microseconds, most of them in Python, so this module
avoids the overhead of the general path. It handles plain cases only and returns None for everything else, including
errors: the general path then computes, or raises the error. See docs/decisions/0026-one-step-at-a-time.md and
0035-a-single-step-in-training-and-of-one-row.md.
"""

from __future__ import annotations

from typing import Any, cast
from weakref import finalize

import torch
from torch import _VF, Tensor
from torch._C._functorch import peek_interpreter_stack
from torch.nn import Parameter
from torch.nn.modules.rnn import RNNBase
from torch.nn.utils.rnn import PackedSequence

from ..backends import is_forced, is_native
from ..backends._precision import precision_of
from ..backends.autograd import is_traced, profiler_is_on
from ..backends.contract import Cell
from ..backends.prepared import PreparedLayer
from ..packed import Packed
from ._weights import weight_shapes

__all__ = ["SHORT_ROWS", "short_forward", "takes_torchs_cells"]

SHORT_ROWS = 256  # rows (T * B) up to which avoiding the general path's Python overhead pays off

# Keyed by the id of the module, which is cheaper than a weak reference in every call; `finalize` removes the entries
# of deleted modules. Each entry also holds the configuration that the weights were checked against.
_prepared: dict[int, tuple[tuple[Any, ...], list[PreparedLayer]]] = {}
_forward_ad = torch.autograd.forward_ad

_CELLS: dict[str, Any] = {
    "LSTM": _VF.lstm_cell, "GRU": _VF.gru_cell, "RNN_TANH": _VF.rnn_tanh_cell, "RNN_RELU": _VF.rnn_relu_cell,
}  # fmt: skip


def takes_torchs_cells(steps: int) -> bool:
    """Whether torch's cell functions (`torch.lstm_cell`, ...) train this layer, as they do for a single step.

    For one step, packing the weights twice (forward and backward) costs more than it saves, and there is no padding
    to skip. Torch's layers do the same work with more overhead.
    """
    return steps == 1


def short_forward(module: RNNBase, input: Any, hx: Any) -> tuple[Any, Any] | None:
    """Return the layer's result for a small plain input, or None if the general path must run.

    Plain means: sequences of equal length in a padded tensor, a `PackedSequence` or a `Packed`; on the CPU, in the
    weights' dtype; no projection, one direction, no autocast, transform or tracing.
    """
    kind = type(input)
    if kind is Tensor:
        rows = input
        if rows.is_nested or rows.dim() != 3:
            return None
        steps, batch = rows.shape[:2]
        swaps = module.batch_first
        if swaps:
            steps, batch = batch, steps
    elif kind is PackedSequence:
        rows, sizes = input.data, _equal_sizes(input)
        if sizes is None or rows.dim() != 2 or rows.shape[0] != len(sizes) * sizes[0]:
            return None
        steps, batch, swaps = len(sizes), sizes[0], False
    elif kind is Packed and input.data.dim() == 2:
        rows, steps, batch, swaps = input.data, input._layout.steps, len(input), True
        if steps * batch != rows.shape[0]:
            return None  # different lengths
    else:
        return None
    weights: list[Any] = module._flat_weights
    states: tuple[Any, ...] = ()
    if hx is not None:
        states = hx if type(hx) is tuple and module.mode == "LSTM" else (hx,)
    if not _is_plain(module, rows, steps, batch, states, weights):
        return None
    is_recorded = torch.is_grad_enabled() and (
        rows.requires_grad or any(t.requires_grad for t in weights) or any(s.requires_grad for s in states)
    )
    if is_recorded and (not takes_torchs_cells(steps) or is_forced()):
        return None
    prepared = _prepared_layers(module, rows.dtype, weights)
    if prepared is None:
        return None
    width = module.hidden_size
    if is_recorded:
        output, finals = _train(module, rows, batch, states, weights)
        output = torch.stack((output,), 1 if swaps else 0) if kind is Tensor else output.clone()
    else:
        swaps = swaps and steps != 1 and batch != 1  # sequences are stored one after another
        if swaps:
            rows = rows.reshape(batch, steps, -1).transpose(0, 1)
        if swaps or kind is not Tensor:
            shape: tuple[int, ...] = (steps * batch, width)
        else:
            shape = (batch, steps, width) if module.batch_first else (steps, batch, width)
        output, finals = _infer(prepared, rows, steps, batch, states, weights, shape)
        if swaps:
            output = output.view(steps, batch, width).transpose(0, 1).reshape(steps * batch, width)
            if kind is Tensor:
                output = output.view(batch, steps, width)
    last = finals if module.mode == "LSTM" else finals[0]
    if kind is Tensor:
        return output, last
    if kind is PackedSequence:
        return PackedSequence(output, input.batch_sizes, None, None), last
    return Packed._of(output, input._layout), last


def _equal_sizes(packed: PackedSequence) -> list[int] | None:
    """The batch sizes if all are equal and the order is the caller's."""
    sizes = packed.batch_sizes
    if (
        type(sizes) is not Tensor
        or type(packed.data) is not Tensor
        or sizes.dim() != 1
        or not 0 < sizes.shape[0] <= SHORT_ROWS
        or sizes.dtype is not torch.int64
        or not sizes.is_cpu
        or packed.sorted_indices is not None
        or packed.unsorted_indices is not None
    ):
        return None
    values: list[int] = sizes.tolist()
    return values if values[0] == values[-1] and values.count(values[0]) == len(values) else None


def _is_plain(
    module: RNNBase, rows: Tensor, steps: int, batch: int, states: tuple[Any, ...], weights: list[Any]
) -> bool:
    if type(rows) is not Tensor or profiler_is_on():  # the general path labels its parts for the profiler
        return False
    if not 0 < steps * batch <= SHORT_ROWS or rows.shape[-1] != module.input_size or not rows.is_cpu:
        return False
    if rows.layout is not torch.strided:
        return False
    if module.bidirectional or module.proj_size or (module.dropout and module.training):
        return False
    dtype = rows.dtype
    if (dtype is not torch.float32 and dtype is not torch.float64) or rows.is_neg():
        return False
    if states:
        if len(states) != (2 if module.mode == "LSTM" else 1):
            return False
        shape = (module.num_layers, batch, module.hidden_size)
        for s in states:
            if type(s) is not Tensor or s.shape != shape or s.dtype is not dtype:
                return False
            if not s.is_cpu or s.layout is not torch.strided or s.is_neg():
                return False
    parameters = module._parameters
    for name, w in zip(module._flat_weights_names, weights, strict=True):
        # Replaced weights (pruned, parametrized, by functional_call) are left to the general path.
        if type(w) is not Parameter or parameters.get(name) is not w or w.is_neg():
            return False
    return (
        is_native()
        and precision_of(dtype) == "highest"
        and not torch.is_autocast_enabled("cpu")
        and peek_interpreter_stack() is None
        and _forward_ad._current_level < 0
        and not is_traced(rows)
    )


def _prepared_layers(
    module: RNNBase, dtype: torch.dtype, weights: list[Tensor]
) -> list[PreparedLayer] | None:
    """The layers with their weights checked, or None if the weights are not plain."""
    configuration = *_configuration(module, dtype), len(weights)
    found, prepared = _prepared.get(id(module), (None, []))
    # Shapes were checked when the layers were prepared; `fits` checks that they have not changed.
    if found == configuration and all(p.fits(weights) for p in prepared):
        return prepared
    if not _can_be_prepared(module, weights, dtype):
        return None
    if found is None:
        finalize(module, _prepared.pop, id(module), None)
    count = 4 if module.bias else 2
    prepared = [
        PreparedLayer(cast(Cell, module.mode), weights, at, at + count)
        for at in range(0, len(weights), count)
    ]
    _prepared[id(module)] = configuration, prepared
    return prepared


def _infer(
    prepared: list[PreparedLayer],
    rows: Tensor,
    steps: int,
    batch: int,
    states: tuple[Tensor, ...],
    weights: list[Tensor],
    shape: tuple[int, ...],
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Return the output, of `shape` (T * B rows in all), and final states of all layers."""
    if not rows.is_contiguous():
        rows = rows.contiguous()
    if states:
        states = tuple([s.contiguous() for s in states])
    if len(prepared) == 1:
        return prepared[0].infer(weights, rows, steps, batch, states, shape)
    finals: list[tuple[Tensor, ...]] = []
    for at, layer in enumerate(prepared):
        rows, final = layer.infer(weights, rows, steps, batch, tuple([s[at : at + 1] for s in states]), shape)
        finals.append(final)
    return rows, tuple(torch.cat(parts) for parts in zip(*finals, strict=True))


def _train(
    module: RNNBase, rows: Tensor, batch: int, states: tuple[Tensor, ...], weights: list[Tensor]
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Return output `(B, H)` and final states of a single step, by torch's cell functions.

    The output and the last state of the last layer share no memory once the caller has copied the output, so that
    each can be changed in place, as with torch's layers.
    """
    cell, is_lstm = _CELLS[module.mode], module.mode == "LSTM"
    if rows.dim() != 2:
        rows = rows.reshape(batch, module.input_size)
    if not states:
        zeros = rows.new_zeros(module.num_layers, batch, module.hidden_size)
        states = (zeros, zeros) if is_lstm else (zeros,)
    before = [s.unbind() for s in states]
    after: list[tuple[Tensor, ...]] = []
    count = 4 if module.bias else 2
    for layer in range(module.num_layers):
        own = weights[layer * count : (layer + 1) * count]
        if is_lstm:
            final = cell(rows, (before[0][layer], before[1][layer]), *own)
        else:
            final = (cell(rows, before[0][layer], *own),)
        rows = final[0]
        after.append(final)
    return rows, tuple([torch.stack(parts) for parts in zip(*after, strict=True)])


def _configuration(module: RNNBase, dtype: torch.dtype) -> tuple[Any, ...]:
    """Everything that `_can_be_prepared` checks weights against."""
    return module.mode, module.input_size, module.hidden_size, module.num_layers, module.bias, dtype


def _can_be_prepared(module: RNNBase, weights: list[Tensor], dtype: torch.dtype) -> bool:
    """Whether all weights are plain tensors of the module's shapes; the kernels rely on it."""
    shapes = weight_shapes(
        module.mode, module.input_size, module.hidden_size, 0, module.num_layers, module.bias, False
    )
    return len(weights) == len(shapes) and all(
        w.shape == shape
        and w.dtype is dtype
        and w.device.type == "cpu"
        and w.layout is torch.strided
        and w.is_contiguous()
        for w, shape in zip(weights, shapes, strict=True)
    )

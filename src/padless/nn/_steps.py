"""Plain layers: kept preparations for inference, and single training steps.

Shared by the modules and by `install`; see docs/decisions/0026-one-step-at-a-time.md, 0037-small-calls-in-bfloat16.md,
0042-a-single-step-trains-on-the-kernels.md and 0044-inference-on-prepared-layers.md.
"""

from __future__ import annotations

from typing import Any, NamedTuple, cast
from weakref import finalize

import torch
from torch import _VF, Tensor
from torch._C._functorch import peek_interpreter_stack

from ..backends import is_native, single_step
from ..backends._kernels import NARROW_DTYPES
from ..backends._precision import precision_of
from ..backends.autograd import is_traced
from ..backends.contract import Cell, weights_per_layer
from ..backends.native import computes
from ..backends.prepared import PreparedLayer
from ._weights import weight_shapes

__all__ = [
    "SHORT_ROWS",
    "Network",
    "infer",
    "is_readable",
    "prepared_layers",
    "runs_kernels",
    "train_step",
    "trains_by_steps",
    "trains_on_kernels",
]

_forward_ad = torch.autograd.forward_ad

SHORT_ROWS = 256  # rows (T * B) up to which avoiding the general path's Python overhead pays off

# Keyed by the id of the owner, which is cheaper than a weak reference in every call; `finalize` removes the entries
# of deleted owners. Each entry also holds the configuration that the weights were checked against.
_prepared: dict[int, tuple[tuple[Any, ...], list[PreparedLayer]]] = {}

# Rows up to which the kernels train a single step; torch's matrix products are faster for more.
_KERNEL_ROWS = 32
_KERNEL_ROWS_IN_BFLOAT16 = 8  # where torch multiplies bfloat16 numbers by instructions for them

_CELLS: dict[str, Any] = {
    "LSTM": _VF.lstm_cell, "GRU": _VF.gru_cell, "RNN_TANH": _VF.rnn_tanh_cell, "RNN_RELU": _VF.rnn_relu_cell,
}  # fmt: skip


def trains_by_steps(steps: int, dtype: torch.dtype) -> bool:
    """Whether `train_step` trains this layer: a single step, unless float32 follows torch's precision switch."""
    return steps == 1 and (dtype in NARROW_DTYPES or precision_of(dtype) == "highest")


def trains_on_kernels(batch: int, dtype: torch.dtype) -> bool:
    """Whether `train_step` uses the kernels, not torch's cell functions (`torch.lstm_cell`, ...)."""
    if dtype is torch.bfloat16:
        return batch <= (
            single_step.STEP_ROWS if precision_of(dtype) == "highest" else _KERNEL_ROWS_IN_BFLOAT16
        )
    return batch <= _KERNEL_ROWS and dtype is not torch.float16


def is_readable(tensor: Tensor) -> bool:
    """Whether kernels can read the tensor as it is, once it is contiguous."""
    return tensor.is_cpu and tensor.layout is torch.strided and not tensor.is_neg()


def runs_kernels(rows: Tensor) -> bool:
    """Whether the native kernels compute such rows: without autocast, transforms, forward-mode AD and tracing."""
    return (
        is_native()
        and computes(rows)
        and not torch.is_autocast_enabled("cpu")
        and peek_interpreter_stack() is None
        and _forward_ad._current_level < 0
        and not is_traced(rows)
    )


class Network(NamedTuple):
    """Shape and options of recurrent layers without projection."""

    mode: str
    input_size: int
    hidden_size: int
    num_layers: int
    bias: bool
    bidirectional: bool = False


def prepared_layers(
    owner: Any, network: Network, dtype: torch.dtype, weights: list[Tensor]
) -> list[PreparedLayer] | None:
    """The layers with their weights checked, or None if the weights are not plain; kept as long as `owner` lives."""
    precision = precision_of(dtype)
    configuration = *network, dtype, precision, len(weights)
    found, prepared = _prepared.get(id(owner), (None, []))
    # Shapes were checked when the layers were prepared; `fits` checks that they have not changed.
    if found == configuration and all(p.fits(weights) for p in prepared):
        return prepared
    if not _can_be_prepared(network, weights, dtype):
        return None
    if found is None:
        finalize(owner, _prepared.pop, id(owner), None)
    count = weights_per_layer(bias=network.bias, projected=False)
    prepared = [
        PreparedLayer(
            cast(Cell, network.mode),
            weights,
            at,
            at + count,
            precision,
            reverse=network.bidirectional and at // count % 2 == 1,
        )
        for at in range(0, len(weights), count)
    ]
    _prepared[id(owner)] = configuration, prepared
    return prepared


def infer(
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
        return prepared[0].infer(rows, steps, batch, states, weights, shape)
    finals: list[tuple[Tensor, ...]] = []
    for at, layer in enumerate(prepared):
        rows, final = layer.infer(rows, steps, batch, tuple([s[at : at + 1] for s in states]), weights, shape)
        finals.append(final)
    return rows, tuple(torch.cat(parts) for parts in zip(*finals, strict=True))


def train_step(
    network: Network,
    rows: Tensor,
    batch: int,
    states: tuple[Tensor, ...],
    weights: list[Tensor],
    shape: tuple[int, ...],
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Return the output, of `shape` (B rows), and final states of a single step of all layers.

    They share no memory, so that each can be changed in place, as with torch's layers.
    """
    if not trains_on_kernels(batch, rows.dtype):
        output, finals = _train_on_cells(network, rows, batch, states, weights)
        return output.clone().view(shape), finals
    rows, states = rows.contiguous(), tuple([s.contiguous() for s in states])
    cell = cast(Cell, network.mode)
    if network.num_layers == 1:
        return single_step.train_step(cell, rows, states, weights, shape)
    after: list[tuple[Tensor, ...]] = []
    count = weights_per_layer(bias=network.bias, projected=False)
    for layer in range(network.num_layers):
        own = weights[layer * count : (layer + 1) * count]
        rows, final = single_step.train_step(
            cell, rows, tuple([s[layer : layer + 1] for s in states]), own, shape
        )
        after.append(final)
    return rows, tuple([torch.cat(parts) for parts in zip(*after, strict=True)])


def _train_on_cells(
    network: Network, rows: Tensor, batch: int, states: tuple[Tensor, ...], weights: list[Tensor]
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Output `(B, H)` and final states, by torch's cell functions."""
    dtype = rows.dtype
    if dtype in NARROW_DTYPES and precision_of(dtype) == "highest":
        # Without instructions for bfloat16 products torch's cells take up to 7 times as long in bfloat16.
        wide_states = tuple([s.float() for s in states])
        output, finals = _train_on_cells(
            network, rows.float(), batch, wide_states, [w.float() for w in weights]
        )
        return output.to(dtype), tuple([s.to(dtype) for s in finals])
    cell, is_lstm = _CELLS[network.mode], network.mode == "LSTM"
    if rows.dim() != 2:
        rows = rows.reshape(batch, network.input_size)
    if not states:
        zeros = rows.new_zeros(network.num_layers, batch, network.hidden_size)
        states = (zeros, zeros) if is_lstm else (zeros,)
    before = [s.unbind() for s in states]
    after: list[tuple[Tensor, ...]] = []
    count = weights_per_layer(bias=network.bias, projected=False)
    for layer in range(network.num_layers):
        own = weights[layer * count : (layer + 1) * count]
        if is_lstm:
            final = cell(rows, (before[0][layer], before[1][layer]), *own)
        else:
            final = (cell(rows, before[0][layer], *own),)
        rows = final[0]
        after.append(final)
    return rows, tuple([torch.stack(parts) for parts in zip(*after, strict=True)])


def _can_be_prepared(network: Network, weights: list[Tensor], dtype: torch.dtype) -> bool:
    """Whether all weights are plain tensors of the network's shapes; the kernels rely on it."""
    mode, input_size, hidden_size, num_layers, bias, bidirectional = network
    shapes = weight_shapes(mode, input_size, hidden_size, 0, num_layers, bias, bidirectional)
    return len(weights) == len(shapes) and all(
        w.shape == shape
        and w.dtype is dtype
        and w.device.type == "cpu"
        and w.layout is torch.strided
        and w.is_contiguous()
        for w, shape in zip(weights, shapes, strict=True)
    )

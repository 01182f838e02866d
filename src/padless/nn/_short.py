"""Calls of one or a few steps: a short path from the module to the kernel, and the rule that selects it.

Such calls (decoding, streaming, rollouts) take some tens of microseconds, most of them in Python, so this module
avoids the overhead of the general path. It handles plain cases only and returns None for everything else, including
errors: the general path then computes, or raises the error. See docs/decisions/0026-one-step-at-a-time.md,
0037-small-calls-in-bfloat16.md and 0042-a-single-step-trains-on-the-kernels.md.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.modules.rnn import RNNBase
from torch.nn.utils.rnn import PackedSequence

from ..backends import is_forced
from ..backends.autograd import profiler_is_on
from ..packed import Packed
from ._plain import has_plain_states, has_plain_weights, is_recorded_by_autograd, network_of, state_tuple
from ._steps import (
    SHORT_ROWS,
    infer,
    is_readable,
    prepared_layers,
    runs_kernels,
    train_step,
    trains_by_steps,
)

__all__ = ["short_forward"]


def short_forward(module: RNNBase, input: Any, hx: Any) -> tuple[Any, Any] | None:
    """Return the layer's result for a small plain input, or None if the general path must run.

    Plain means: sequences of equal length in a padded tensor, a `PackedSequence` or a `Packed`; on the CPU, in the
    weights' dtype; no projection, one direction, no autocast, transform or tracing.
    """
    opened = _opened(module, input)
    if opened is None:
        return None
    rows, steps, batch, is_sequence_major = opened
    kind = type(input)
    weights: list[Any] = module._flat_weights
    states = state_tuple(module, hx)
    if not _is_plain(module, rows, steps, batch, states, weights):
        return None
    trains = is_recorded_by_autograd(rows, states, weights)
    if trains and (not trains_by_steps(steps, rows.dtype) or is_forced()):
        return None
    network = network_of(module)
    prepared = prepared_layers(module, network, rows.dtype, weights)
    if prepared is None:
        return None
    width = module.hidden_size
    transposes = is_sequence_major and steps > 1 and batch > 1
    if transposes or kind is not Tensor:
        shape: tuple[int, ...] = (steps * batch, width)
    else:
        shape = (batch, steps, width) if is_sequence_major else (steps, batch, width)
    if trains:
        output, finals = train_step(network, rows, batch, states, weights, shape)
    else:
        if transposes:
            rows = rows.reshape(batch, steps, -1).transpose(0, 1)
        output, finals = infer(prepared, rows, steps, batch, states, weights, shape)
        if transposes:
            output = output.view(steps, batch, width).transpose(0, 1).reshape(steps * batch, width)
            if kind is Tensor:
                output = output.view(batch, steps, width)
    if kind is PackedSequence:
        output = PackedSequence(output, input.batch_sizes, None, None)
    elif kind is Packed:
        output = Packed._of(output, input._layout)
    return output, finals if module.mode == "LSTM" else finals[0]


def _opened(module: RNNBase, input: Any) -> tuple[Tensor, int, int, bool] | None:
    """The rows, T, B and whether sequences are stored one after another; None unless all are T steps long."""
    kind = type(input)
    if kind is Tensor:
        if input.is_nested or input.dim() != 3:
            return None
        first, second = input.shape[:2]
        return (input, second, first, True) if module.batch_first else (input, first, second, False)
    if kind is PackedSequence:
        rows, sizes = input.data, _equal_sizes(input)
        if sizes is None or rows.shape[0] != len(sizes) * sizes[0]:
            return None
        return rows, len(sizes), sizes[0], False
    if kind is Packed and input.data.dim() == 2:
        rows, steps, batch = input.data, input._layout.steps, len(input)
        return (rows, steps, batch, True) if steps * batch == rows.shape[0] else None
    return None


def _equal_sizes(packed: PackedSequence) -> list[int] | None:
    """The batch sizes if all are equal and the order is the caller's."""
    sizes = packed.batch_sizes
    if (
        type(sizes) is not Tensor
        or type(packed.data) is not Tensor
        or packed.data.dim() != 2
        or packed.data.shape[0] > SHORT_ROWS
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
    if not 0 < steps * batch <= SHORT_ROWS or rows.shape[-1] != module.input_size or not is_readable(rows):
        return False
    if module.bidirectional or module.proj_size or (module.dropout and module.training):
        return False
    return (
        has_plain_states(module, rows, batch, states)
        and has_plain_weights(module, weights)
        and runs_kernels(rows)
    )

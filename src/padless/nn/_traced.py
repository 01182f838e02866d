"""The forward of the three layers under `torch.compile`, `torch.export` and ONNX, by operators without Python loops.

It computes the same as `_forward`, but knows only shapes: the values of lengths and batch sizes are unknown during
tracing, and the operators check them at every call.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch._guards import TracingContext
from torch.nn import functional
from torch.nn.modules.rnn import RNNBase
from torch.nn.utils.rnn import PackedSequence

from .. import backends
from ..backends import operators
from ..backends._recompute import is_recomputing
from ..backends.contract import layer_output_dtype, layer_weights
from ..layout.checks import traced_lengths
from ..layout.operators import grid_schedule, rows_schedule
from ..packed import Packed
from ._kinds import check_dims, check_kind

__all__ = ["TracedBatch", "run_traced", "traced_batch"]


_is_exporting = getattr(torch.compiler, "is_exporting", lambda: False)  # torch 2.6 has none


def _takes_sizes_from_values() -> bool:
    """Whether the graph being traced may contain operators with data-dependent result sizes.

    True with `fullgraph=True`; without it such an operator breaks the graph. In a compiled function this is evaluated
    once per graph.
    """
    context = TracingContext.try_get()
    shapes = getattr(getattr(context, "fake_mode", None), "shape_env", None)
    return bool(getattr(shapes, "allow_dynamic_output_shape_ops", False))


def _runs_native(device_type: str, forced: str | None) -> bool:
    """Whether the native kernels run, evaluated once for each `forced`, the backend chosen by `use`."""
    return backends.choose(device_type) == "native"


# What `torch.compiler.assume_constant_result` sets; calling it would import Dynamo.
_takes_sizes_from_values._dynamo_marked_constant = True  # type: ignore[attr-defined]
_runs_native._dynamo_marked_constant = True  # type: ignore[attr-defined]


class TracedBatch(NamedTuple):
    """Input of any kind as the arguments of `padless::layer`, and the conversion back."""

    rows: Tensor
    batch_sizes: Tensor
    order: Tensor | None
    step: Tensor | None
    sequence: Tensor | None
    batch: Any  # B, which may be symbolic
    restore: Callable[[Tensor], Any]
    is_padded: bool = False
    is_unbatched: bool = False


def traced_batch(module: RNNBase, input: Any, lengths: Any) -> TracedBatch:
    """`input` of any kind; raises the same errors as `open_input`, as far as shapes and types show them."""
    check_kind(input, lengths)
    if isinstance(input, PackedSequence):
        return _of_packed_sequence(module, input)
    if isinstance(input, Packed):
        return _of_packed(module, input)
    if input.is_nested:
        return _of_nested(module, input)
    return _of_padded(module, input, lengths)


def _of_packed_sequence(module: RNNBase, packed: PackedSequence) -> TracedBatch:
    data, batch_sizes, given, unsorted = (
        packed.data,
        packed.batch_sizes,
        packed.sorted_indices,
        packed.unsorted_indices,
    )
    module.check_input(data, batch_sizes)
    order = torch.argsort(unsorted) if given is None and unsorted is not None else given
    batch = None if order is None else order.shape[0]
    if batch is None:
        batch = batch_sizes[0].item()
        torch._check(batch > 0)
        torch._check(batch <= data.shape[0])
    return TracedBatch(
        data,
        batch_sizes,
        order,
        None,
        None,
        batch,
        lambda output: PackedSequence(output, batch_sizes, given, unsorted),
    )


def _of_packed(module: RNNBase, packed: Packed) -> TracedBatch:
    data, layout = packed._data, packed._layout
    module.check_input(data, layout.lengths)
    batch = _of_rows(data, layout.lengths)
    return batch._replace(restore=lambda output: Packed._of(output, layout))


def _of_rows(data: Tensor, lengths: Tensor) -> TracedBatch:
    batch_sizes, order, begins = rows_schedule(lengths, data.shape[0])
    step = torch.arange(batch_sizes.shape[0], device="cpu")
    return TracedBatch(data, batch_sizes, order, step, begins, lengths.shape[0], lambda output: output)


def _of_nested(module: RNNBase, nested: Any) -> TracedBatch:
    if nested.lengths() is not None:
        raise NotImplementedError("a compiled layer takes jagged tensors without holes")
    data, offsets = nested.values(), nested.offsets()
    module.check_input(data, offsets)
    batch = _of_rows(data, offsets.diff().cpu())
    return batch._replace(restore=lambda output: torch.nested.nested_tensor_from_jagged(output, offsets))


def _of_padded(module: RNNBase, input: Tensor, lengths: Any) -> TracedBatch:
    check_dims(module, input)
    is_unbatched = input.dim() == 2
    if is_unbatched and lengths is not None:
        raise ValueError("lengths goes with a batch of sequences; an unbatched input (T, I) is one sequence")
    batch_dim = 0 if module.batch_first else 1
    grid = input.unsqueeze(batch_dim) if is_unbatched else input
    module.check_input(grid, None)
    size, steps = grid.shape[batch_dim], grid.shape[1 - batch_dim]
    order = None
    if lengths is None:
        torch._check(steps > 0, lambda: "Expected sequence length to be larger than 0 in RNN")
        batch_sizes = torch.ones(steps, dtype=torch.int64, device="cpu") * size
        sequence = torch.arange(size, device="cpu")
    else:
        batch_sizes, sequence = grid_schedule(traced_lengths(lengths, batch=size), steps)
        order = sequence.to(input.device)
    step_stride, sequence_stride = (1, steps) if module.batch_first else (size, 1)
    step, sequence = torch.arange(steps, device="cpu") * step_stride, sequence * sequence_stride
    shape = grid.shape[:2]

    def restore(cells: Tensor) -> Tensor:
        output = cells.view(*shape, cells.shape[1])
        return output.squeeze(batch_dim) if is_unbatched else output

    return TracedBatch(
        grid.reshape(size * steps, grid.shape[2]),
        batch_sizes,
        order,
        step,
        sequence,
        size,
        restore,
        True,
        is_unbatched,
    )


def run_traced(
    module: RNNBase,
    batch: TracedBatch,
    states: tuple[Tensor, ...],
    weights: list[Tensor],
    output_dtype: torch.dtype | None = None,
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Output `(M, D*P)` of the last layer, placed like the rows, and final states `(L*D, B, *)`.

    `output_dtype`: that of the last layer under autocast, which multiplies bfloat16 numbers.
    """
    rows = batch.rows
    directions = 2 if module.bidirectional else 1
    keep, exact = "nothing", False
    # Exported programs are mostly for inference. If one is trained anyway, backward recomputes what it needs.
    # `_forced.now` is read here so that Dynamo recompiles when it changes.
    if (
        torch.is_grad_enabled()
        and not _is_exporting()
        and _runs_native(rows.device.type, backends._forced.now)
    ):
        keep = "cells" if is_recomputing() else "gates"
        exact = _takes_sizes_from_values()
    finals: list[tuple[Tensor, ...]] = []
    for number in range(module.num_layers):
        is_last = number == module.num_layers - 1
        dtype = layer_output_dtype(output_dtype, is_last=is_last)
        outputs = []
        for direction in range(directions):
            place = number * directions + direction
            mine = layer_weights(weights, place, bias=module.bias, projected=module.proj_size > 0)
            output, h_n, c_n, _ = operators.layer(
                module.mode, rows, batch.batch_sizes, batch.order, batch.step, batch.sequence,
                states[0][place], states[1][place] if len(states) == 2 else None,
                *mine, direction == 1, dtype, keep, exact,
            )  # fmt: skip
            outputs.append(output)
            finals.append((h_n, c_n)[: len(states)])
        rows = outputs[0] if directions == 1 else torch.cat(outputs, 1)
        if module.dropout and module.training and not is_last:
            rows = functional.dropout(rows, module.dropout, training=True)
    return rows, tuple(torch.stack(parts) for parts in zip(*finals, strict=True))

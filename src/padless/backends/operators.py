"""The kernels as operators of `torch.library`, for `torch.compile`, `torch.export` and ONNX.

Eager calls do not use them: `autograd.run_layer` is faster. An operator takes and returns tensors only, has a fake
implementation that gives the shapes of its results, and its gradient is an operator too. Its arguments at run time
may come from a saved program, so it checks every index that reaches a kernel.

    padless::layer           one layer in one direction, and what its backward needs (`_saved`)
    padless::layer_backward  the gradients

Arguments of `padless::layer` in addition to the tensors of a layer:

    reverse       whether time runs from each sequence's last row to its first
    output_dtype  under bfloat16 autocast: the dtype of the output. Rows may be float32 or bfloat16, and products are of
                  bfloat16 numbers if there are kernels for them. None: as the rows
    keep          what is saved for backward: "gates", "cells" (gates are recomputed) or "nothing"
    exact         whether the saved bytes have the size of the batch's real rows in the precision in use, for compilers
                  that support data-dependent sizes, or of all rows `(M, I)` in the widest dtype
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
from torch import Tensor
from torch.library import Library, get_ctx, register_autograd, register_fake

from ..errors import LayoutError
from ..layout.checks import check_batch_sizes, check_permutation, check_state, check_weights
from ..layout.operators import untraced
from ..layout.schedule import Place, Schedule, copied
from . import _kernels, choose, native, portable
from ._precision import precision_of
from ._saved import KEEPS, new_saved, opened, saved_size, zero_unused
from ._slots import into_slots, out_of_slots
from .autograd import without_autocast
from .contract import GATES, Gradients, Layer, LayerWeights, Precision, States

__all__ = ["layer"]

_LAYER = (
    "str cell, Tensor rows, Tensor batch_sizes, Tensor? order, Tensor? step, Tensor? sequence, Tensor h0, Tensor? c0, "
    "Tensor w_ih, Tensor w_hh, Tensor? b_ih, Tensor? b_hh, Tensor? w_hr, bool reverse, "
    "ScalarType? output_dtype"
)
_library = Library("padless", "FRAGMENT")
_library.define(f"layer({_LAYER}, str keep, bool exact) -> (Tensor, Tensor, Tensor, Tensor)")
_library.define(
    f"layer_backward({_LAYER}, Tensor output, Tensor saved, Tensor? grad_output, Tensor? grad_h, Tensor? grad_c, "
    "bool[] needs) -> Tensor[]"
)
layer = torch.ops.padless.layer.default
_layer_backward = torch.ops.padless.layer_backward.default


def _checked(
    cell: str,
    rows: Tensor,
    batch_sizes: Tensor,
    order: Tensor | None,
    step: Tensor | None,
    sequence: Tensor | None,
    h0: Tensor,
    c0: Tensor | None,
    w_ih: Tensor,
    w_hh: Tensor,
    b_ih: Tensor | None,
    b_hh: Tensor | None,
    w_hr: Tensor | None,
    reverse: bool,
    output_dtype: torch.dtype | None,
) -> Layer:
    """The arguments as a layer; batch sizes may end in zeros, for steps that no sequence has."""
    if (step is None) != (sequence is None):
        raise LayoutError("step and sequence must be given together")
    _check_indices("batch_sizes", batch_sizes)
    sizes = copied(batch_sizes[: int(torch.count_nonzero(batch_sizes))])
    if rows.dim() != 2:
        raise RuntimeError(f"rows must have shape (M, I), got {tuple(rows.shape)}")
    count = rows.shape[0] if step is None else int(sizes.sum())
    slots = check_batch_sizes(sizes, rows=count)
    place = None
    if step is not None and sequence is not None:
        place = _checked_place(step, sequence, len(sizes), slots, rows.shape[0], count)
    if order is not None:
        check_permutation(order, at_least=slots, name="sorted_indices")
        order = copied(order)
    batch = slots if order is None else len(order)
    states = (h0,) if c0 is None else (h0, c0)
    weights = LayerWeights(w_ih, w_hh, b_ih, b_hh, w_hr)
    _check_shapes(cell, rows, states, weights, batch, output_dtype)
    return Layer(
        cell,  # type: ignore[arg-type]
        rows,
        Schedule(sizes, place, rows=count, slots=slots, order=order),
        states,
        weights,
        reverse,
        _precision(rows, is_autocast=output_dtype is not None and w_ih.dtype == torch.float32),
        output_dtype,
    )


def _precision(rows: Tensor, *, is_autocast: bool) -> Precision:
    if rows.device.type != "cpu" or choose("cpu") != "native":
        return "highest"
    return precision_of(torch.bfloat16 if is_autocast else rows.dtype)


def _check_indices(name: str, indices: Tensor) -> None:
    if indices.dtype != torch.int64 or indices.dim() != 1 or indices.device.type != "cpu":
        raise LayoutError(
            f"{name} must be a one-dimensional int64 tensor on the CPU, "
            f"got {indices.dtype} {tuple(indices.shape)} on {indices.device}"
        )


def _checked_place(step: Tensor, sequence: Tensor, steps: int, slots: int, storage: int, count: int) -> Place:
    """Where `count` rows are in a storage of `storage` rows; that no two steps share a row is not checked."""
    _check_indices("step", step)
    _check_indices("sequence", sequence)
    if len(step) < steps or len(sequence) < slots:
        raise LayoutError(
            f"{len(step)} steps and {len(sequence)} sequences have a place, of {steps} and {slots}"
        )
    sequence = copied(sequence[:slots])
    begins = sequence.tolist()
    if len(set(begins)) < slots:
        twice = next(row for row, after in pairwise(sorted(begins)) if row == after)
        raise LayoutError(f"sequence names row {twice} for two slots")
    return Place(copied(step[:steps]), sequence, storage, has_gaps=count < storage)


def _check_shapes(
    cell: str,
    rows: Tensor,
    states: States,
    weights: LayerWeights,
    batch: int,
    output_dtype: torch.dtype | None,
) -> None:
    """Raise RuntimeError unless states and weights fit one another and the rows; the kernels trust them."""
    w_ih, w_hh, b_ih, b_hh, w_hr = weights
    if cell not in _kernels.CELLS or len(states) != (2 if cell == "LSTM" else 1):
        raise RuntimeError(f"{len(states)} initial states do not make a layer of {cell!r}")
    if (
        w_hh.dim() != 2
        or (w_hr is not None and (w_hr.dim() != 2 or cell != "LSTM"))
        or (b_ih is None) != (b_hh is None)
    ):
        raise RuntimeError("w_hh and w_hr must be matrices, and biases come in pairs; only an LSTM has w_hr")
    hidden, width = weights.hidden, weights.output
    gates = GATES[cell] * hidden
    shapes = ((gates, rows.shape[1]), (gates, width), (gates,), (gates,), (width, hidden))
    given = [each for each in zip(weights, LayerWeights._fields, shapes, strict=True) if each[0] is not None]
    check_weights(*zip(*given, strict=True), rows.device)  # type: ignore[call-arg]
    for name, dtype in (("rows have", rows.dtype), ("output has", output_dtype or rows.dtype)):
        if dtype != w_ih.dtype and (dtype, w_ih.dtype) != (torch.bfloat16, torch.float32):  # autocast
            raise RuntimeError(f"the {name} dtype {dtype}, but the weights have {w_ih.dtype}")
    for state, name, size in zip(states, ("h0", "c0"), (width, hidden), strict=False):
        check_state(state, (batch, size), rows, name, any_dtype=True)
        if state.dtype != w_ih.dtype:
            raise RuntimeError(f"{name} has dtype {state.dtype}, but the weights have {w_ih.dtype}")


def _check_like(name: str, given: Tensor | None, shape: tuple[int, ...], dtype: torch.dtype) -> None:
    if given is not None and (given.shape != shape or given.dtype != dtype):
        raise RuntimeError(f"{name} must be {dtype} {shape}, got {given.dtype} {tuple(given.shape)}")


def _is_native(rows: Tensor) -> bool:
    return choose(rows.device.type) == "native" and native.computes(rows)


def _for_portable(layer: Layer) -> tuple[Layer, Tensor]:
    """The layer as the portable backend takes it, and the place of each of its time-major rows, `(N,)`."""
    at = layer.schedule.addresses.to(layer.rows.device)
    states = into_slots(layer.states, layer.schedule)
    rows = layer.rows.index_select(0, at).to(layer.weights.w_ih.dtype)  # autocast lowers only rows and output
    return layer._replace(
        rows=rows, states=states, schedule=layer.schedule.in_time_major(), output_dtype=None
    ), at


def _portable_forward(layer: Layer) -> tuple[Tensor, States]:
    inner, at = _for_portable(layer)
    rows, finals = portable.infer(inner)
    output = rows.new_zeros(layer.schedule.storage_rows, rows.shape[1]).index_copy_(0, at, rows)
    return output.to(layer.output_dtype or layer.rows.dtype), tuple(
        s.clone() for s in out_of_slots(finals, layer.states, layer.schedule)
    )


def _portable_backward(
    layer: Layer, grad_output: Tensor | None, grad_finals: Gradients, needs: tuple[bool, ...]
) -> list[Tensor | None]:
    """Gradients by the portable backend, which recomputes the forward."""
    inner, at = _for_portable(layer)
    output, _, saved = portable.forward(inner)
    if grad_output is not None:
        grad_output = grad_output.index_select(0, at).to(output.dtype)
    given = tuple(
        s.new_zeros(s.shape) if g is None else g for g, s in zip(grad_finals, layer.states, strict=True)
    )
    slotted = into_slots(given, layer.schedule)
    found = list(portable.backward(inner, output, saved, grad_output, slotted, needs))
    if found[0] is not None:
        found[0] = layer.rows.new_zeros(layer.rows.shape).index_copy_(0, at, found[0].to(layer.rows.dtype))
    for place, grad in enumerate(given, 1):
        grad_slots = found[place]
        if grad_slots is not None:
            (found[place],) = out_of_slots((grad_slots,), (grad,), layer.schedule)
    return found


@torch.library.impl(_library, "layer", "CompositeExplicitAutograd")
@untraced
def _layer(*arguments: Any) -> tuple[Tensor, ...]:
    *given, keep, exact = arguments
    layer = _checked(*given)
    rows = layer.rows
    is_native = _is_native(rows)
    saved, matrices = new_saved(layer, _kept(keep, rows), exact=exact, is_native=is_native)
    with without_autocast(rows.device.type):
        if not is_native:
            output, finals = _portable_forward(layer)
        elif matrices is None:
            output, finals = native.infer(layer)
        else:
            output, finals, _ = native.forward(layer, saved=matrices)
            zero_unused(matrices, layer.weights.hidden)
    h_n, c_n = finals if len(finals) == 2 else (finals[0], rows.new_empty(0))
    return output, h_n, c_n, saved


def _kept(keep: str, rows: Tensor) -> str:
    """`keep`, or "nothing" if no kernels can compute such rows.

    It ignores which backend is chosen: the sizes of results must follow from the arguments alone, since compiled
    programs are kept, and another backend may be chosen when one runs.
    """
    if keep not in KEEPS:
        raise RuntimeError(f"keep must be one of {', '.join(KEEPS)}, got {keep!r}")
    has_kernels = rows.device.type == "cpu" and native.computes(rows) and _kernels.missing() is None
    return keep if has_kernels else "nothing"


@register_fake("padless::layer")
def _fake_layer(*arguments: Any) -> tuple[Tensor, ...]:
    cell, rows, _, _, _, _, h0, c0, *weights, _, output_dtype, keep, exact = arguments
    weights = LayerWeights(*weights)
    if exact and keep != "nothing":
        size = get_ctx().new_dynamic_size(min=2)  # at least a header
    else:
        size = saved_size(cell, rows, weights.hidden, _kept(keep, rows))
    c_n = rows.new_empty(0) if c0 is None else c0.new_empty(c0.shape)
    output = rows.new_empty(rows.shape[0], weights.output, dtype=output_dtype)
    return output, h0.new_empty(h0.shape), c_n, torch.empty(size, dtype=torch.uint8, device="cpu")


@torch.library.impl(_library, "layer_backward", "CompositeExplicitAutograd")
@untraced
def _backward(*arguments: Any) -> list[Tensor]:
    *given, output, saved, grad_output, grad_h, grad_c, needs = arguments
    layer = _checked(*given)
    rows, schedule, states = layer.rows, layer.schedule, layer.states
    grad_finals = (grad_h, grad_c)[: len(states)]
    output_dtype = layer.output_dtype or rows.dtype
    for name, tensor in (("output", output), ("grad_output", grad_output)):
        _check_like(name, tensor, (schedule.storage_rows, layer.weights.output), output_dtype)
    for name, tensor, state in zip(("grad_h", "grad_c"), grad_finals, states, strict=False):
        _check_like(name, tensor, tuple(state.shape), state.dtype)
    layer, kept = opened(saved, layer)  # in the precision of forward, whatever torch's setting is now
    with without_autocast(rows.device.type):
        if not _is_native(rows):
            found = _portable_backward(layer, grad_output, grad_finals, tuple(needs))
        else:
            if kept is None:
                _, _, kept = native.forward(layer)
            found = native.backward(layer, output.contiguous(), kept, grad_output, grad_finals, tuple(needs))
    grads: list[Tensor] = []
    for grad in found:
        if grad is None:
            grads.append(layer.rows.new_empty(0))
        else:  # an operator's results must not share memory, but both biases may have one gradient tensor
            shared = any(grad.untyped_storage()._cdata == other.untyped_storage()._cdata for other in grads)
            grads.append(grad.clone() if shared else grad)
    return grads


@register_fake("padless::layer_backward")
def _fake_backward(*arguments: Any) -> list[Tensor]:
    _, rows, _, _, _, _, h0, c0, *weights = arguments[:13]
    needs = arguments[-1]
    return [
        t.new_empty(t.shape) if need and t is not None else rows.new_empty(0)
        for t, need in zip((rows, h0, c0, *weights), needs, strict=True)
    ]


def _keep_inputs(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    cell, *tensors, reverse, output_dtype, _, _ = inputs
    ctx.cell, ctx.reverse, ctx.output_dtype = cell, reverse, output_dtype
    ctx.save_for_backward(*tensors, output[0], output[3])
    ctx.set_materialize_grads(False)


def _gradients(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
    tensors = ctx.saved_tensors
    given, (output, saved) = tensors[:12], tensors[12:]
    needs = [ctx.needs_input_grad[1], *ctx.needs_input_grad[6:13]]
    grad_c = None if given[6] is None else grads[2]
    found = _layer_backward(
        ctx.cell, *given, ctx.reverse, ctx.output_dtype, output, saved, grads[0], grads[1], grad_c, needs
    )
    rows, *others = (
        grad if need and t is not None else None
        for grad, need, t in zip(found, needs, (given[0], *given[5:]), strict=True)
    )
    return None, rows, None, None, None, None, *others, None, None, None, None


register_autograd("padless::layer", _gradients, setup_context=_keep_inputs)

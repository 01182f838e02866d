"""One autograd node per layer and direction, for any backend that computes its own gradients."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch._C._functorch import is_batchedtensor, is_legacy_batchedtensor
from torch.autograd.profiler import record_function

from ..layout.walks import is_transformed
from . import reference
from ._slots import into_slots, out_of_slots
from .contract import Backend, Gradients, Layer, LayerWeights, States

__all__ = [
    "differentiable_backward",
    "is_autocasting",
    "is_batched",
    "is_recorded",
    "is_traced",
    "profiler_is_on",
    "run_layer",
    "without_autocast",
]

profiler_is_on = torch._C._autograd._profiler_enabled  # type: ignore[attr-defined]


def run_layer(backend: Backend, layer: Layer, *, out: Tensor | None = None) -> tuple[Tensor, States]:
    """Output `(N, P)` and final states of one layer and direction, differentiable.

    Args:
        backend: the backend (`contract`).
        layer: what to compute.
        out: receives the output if nothing is recorded for backward (`is_recorded`).
    """
    with _profiled(f"padless::{layer.cell}", backend):
        if _needs_composed(layer.rows):
            return _composed(backend, layer)
        tensors = _inputs(layer)
        if _requires_grad(tensors):
            output, *finals = _Layer.apply(
                backend, layer._replace(rows=None, states=(), weights=None), *tensors
            )
            return output, tuple(finals)
        return backend.infer(layer, out=out)


_not_profiled = nullcontext()


def _profiled(name: str, backend: Backend) -> AbstractContextManager[object]:
    """A context that torch's profiler shows as `name (backend)`; free if no profiler runs."""
    if profiler_is_on():
        return record_function(f"{name} ({backend.__name__.rpartition('.')[2]})")
    return _not_profiled


def _inputs(layer: Layer) -> Gradients:
    """The tensors that can have gradients, in the order of `needs`; None for those that the layer lacks."""
    h0, c0 = layer.states if len(layer.states) == 2 else (layer.states[0], None)
    return layer.rows, h0, c0, *layer.weights


def is_recorded(rows: Tensor, *others: Tensor | None) -> bool:
    """Whether torch tracks what is computed from these tensors, by autograd or by a transform."""
    return _requires_grad((rows, *others)) or _needs_composed(rows)


def _requires_grad(tensors: tuple[Tensor | None, ...]) -> bool:
    return torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in tensors)


def _composed(backend: Backend, layer: Layer) -> tuple[Tensor, States]:
    """`reference.run` for rows and states placed as `backend` expects them."""
    full = layer.weights.w_ih.dtype
    if layer.rows.dtype != full or layer.output_dtype not in (None, full):  # under autocast
        output, finals = _composed(backend, layer._replace(rows=layer.rows.to(full), output_dtype=None))
        return output.to(layer.output_dtype or layer.rows.dtype), finals
    if backend.STATES_BY == "sequence":
        in_slots = layer._replace(states=into_slots(layer.states, layer.schedule))
        output, finals = _composed_in_slots(in_slots)
        return output, out_of_slots(finals, layer.states, layer.schedule)
    return _composed_in_slots(layer)


def _composed_in_slots(layer: Layer) -> tuple[Tensor, States]:
    schedule = layer.schedule
    if schedule.place is None:
        return reference.run(layer)
    at = schedule.addresses.to(layer.rows.device)
    output, finals = reference.run(layer._replace(rows=layer.rows.index_select(0, at)))
    return output.new_zeros(schedule.storage_rows, output.shape[1]).index_copy(0, at, output), finals


def is_traced(rows: Tensor) -> bool:
    """Whether operators are traced or intercepted in Python (fake tensors, counters), which kernels would bypass."""
    if torch._C._is_tracing() or torch._C._len_torch_dispatch_stack() > 0:
        return True
    # Only a subclass can have the key; checking every plain tensor would take a hundredth of a small call.
    return type(rows) is not Tensor and torch._C._dispatch_keys(rows).has(
        torch._C.DispatchKey.Python  # type: ignore[attr-defined]
    )


def _needs_composed(rows: Tensor) -> bool:
    """Whether the layer must be computed by torch's own operations.

    True inside `torch.func` transforms and forward-mode AD, which cannot see into a custom node, while
    operators are traced, and for complex numbers, whose gradients need conjugates.
    """
    return rows.is_complex() or is_transformed() or is_traced(rows)


def is_autocasting(device_type: str) -> bool:
    """Whether autocast is on for this device."""
    # The meta device has no autocast, and the query raises.
    return torch.amp.is_autocast_available(device_type) and torch.is_autocast_enabled(device_type)


def without_autocast(device_type: str) -> AbstractContextManager[object]:
    """A context in which autocast is off for this device; free if it is already off."""
    return torch.autocast(device_type, enabled=False) if is_autocasting(device_type) else nullcontext()


class _Layer(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        backend: Backend,
        frame: Layer,  # the layer without its tensors, which would hold their graphs
        rows: Tensor,
        h0: Tensor,
        c0: Tensor | None,
        *weights: Any,  # the five of LayerWeights
    ) -> tuple[Tensor, ...]:
        states = (h0,) if c0 is None else (h0, c0)
        output, finals, saved = backend.forward(_filled(frame, rows, states, weights))
        ctx.backend, ctx.frame = backend, frame
        ctx.save_for_backward(rows, h0, c0, *weights, output, *saved)
        ctx.set_materialize_grads(False)
        return (output, *finals)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> Gradients:
        tensors = ctx.saved_tensors  # once: checkpointing recomputes them on every read
        rows, h0, c0, *weights, output = tensors[:9]
        states = (h0,) if c0 is None else (h0, c0)
        layer = _filled(ctx.frame, rows, states, weights)
        needs = ctx.needs_input_grad[2:]
        # Gradients are computed in the precision of the forward, whatever autocast says now.
        with _profiled(f"padless::{layer.cell}_backward", ctx.backend), without_autocast(rows.device.type):
            # With create_graph this gradient is itself differentiated.
            if torch.is_grad_enabled() or any(g is not None and is_batched(g) for g in grads):
                return (None, None, *differentiable_backward(ctx.backend, layer, grads, needs))
            saved = tensors[9:]
            return (None, None, *ctx.backend.backward(layer, output, saved, grads[0], grads[1:], needs))


def _filled(frame: Layer, rows: Tensor, states: States, weights: Any) -> Layer:
    """The layer with its tensors."""
    return frame._replace(rows=rows, states=states, weights=LayerWeights(*weights))


def is_batched(grad: Tensor) -> bool:
    """Whether the gradient is one of a batch (`is_grads_batched`), without memory that a kernel could read."""
    return is_batchedtensor(grad) or is_legacy_batchedtensor(grad)


def differentiable_backward(
    backend: Backend, layer: Layer, grads: Gradients, needs: tuple[bool, ...]
) -> Gradients:
    """The same gradients, computed by torch operations and so differentiable again."""
    inputs = _inputs(layer)
    create_graph = torch.is_grad_enabled()
    with torch.enable_grad():
        return _by_composed(backend, layer, inputs, grads, needs, create_graph)


def _by_composed(
    backend: Backend,
    layer: Layer,
    inputs: Gradients,
    grads: Gradients,
    needs: tuple[bool, ...],
    create_graph: bool,
) -> Gradients:
    # Aliases keep the arguments apart if the caller passed one tensor twice (h0 is c0).
    alias: list[Any] = [t if t is None else t.view_as(t) for t in inputs]
    rows, h0, c0, *weights = alias
    states = (h0,) if c0 is None else (h0, c0)
    output, finals = _composed(
        backend, layer._replace(rows=rows, states=states, weights=LayerWeights(*weights))
    )
    pairs = [
        (value, grad)
        for value, grad in zip((output, *finals), grads, strict=True)
        if grad is not None and value.requires_grad
    ]
    wanted = [t for t, need in zip(alias, needs, strict=True) if need and t is not None]
    found = iter(
        torch.autograd.grad(
            [value for value, _ in pairs],
            wanted,
            [grad for _, grad in pairs],
            create_graph=create_graph,
            allow_unused=True,
        )
    )
    result: list[Tensor | None] = []
    for t, need in zip(inputs, needs, strict=True):
        grad = next(found) if need and t is not None else None
        # Without rows nothing depends on the weights, but their gradient is still 0.
        result.append(t.new_zeros(t.shape) if grad is None and need and t is not None else grad)
    return tuple(result)

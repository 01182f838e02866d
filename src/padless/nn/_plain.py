"""Plain calls of modules, for which prepared layers may compute, and inference of plain calls of any size.

See docs/decisions/0044-inference-on-prepared-layers.md.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter
from torch.nn.modules.rnn import RNNBase

from ..backends.autograd import profiler_is_on
from ..backends.contract import States
from ..backends.prepared import infer_layers
from ..layout.schedule import Schedule
from ._steps import Network, is_readable, prepared_layers, runs_kernels

__all__ = [
    "has_plain_states",
    "has_plain_weights",
    "infer_plain",
    "is_recorded_by_autograd",
    "network_of",
    "state_tuple",
]


def infer_plain(module: RNNBase, rows: Tensor, schedule: Schedule, hx: Any) -> tuple[Tensor, States] | None:
    """Output `(M, D*H)`, placed like the rows, and final states `(L*D, B, H)`; None if the general path must run.

    Plain means: contiguous rows on the CPU in the weights' dtype, no projection, nothing recorded by autograd, no
    autocast, transform or tracing. The bits are those of the general path, which also raises all errors.
    """
    weights: list[Any] = module._flat_weights
    states = state_tuple(module, hx)
    # The general path labels its parts for the profiler. The kernels do not read float16.
    if type(rows) is not Tensor or is_recorded_by_autograd(rows, states, weights) or profiler_is_on():
        return None
    if module.proj_size or (module.dropout and module.training) or rows.dtype is torch.float16:
        return None
    if not (schedule.steps and is_readable(rows) and rows.is_contiguous()):
        return None
    if not (has_plain_states(module, rows, schedule.batch, states) and has_plain_weights(module, weights)):
        return None
    prepared = (
        prepared_layers(module, network_of(module), rows.dtype, weights) if runs_kernels(rows) else None
    )
    if prepared is None:
        return None
    if states:
        states = tuple([s.contiguous() for s in states])
    return infer_layers(prepared, 2 if module.bidirectional else 1, rows, schedule, states, weights)


def network_of(module: RNNBase) -> Network:
    """The shape and options of a module without projection."""
    return Network(
        module.mode,
        module.input_size,
        module.hidden_size,
        module.num_layers,
        module.bias,
        module.bidirectional,
    )


def state_tuple(module: RNNBase, hx: Any) -> tuple[Any, ...]:
    """The initial states as given, not yet checked; none for zeros."""
    if hx is None:
        return ()
    return hx if type(hx) is tuple and module.mode == "LSTM" else (hx,)


def is_recorded_by_autograd(rows: Tensor, states: tuple[Any, ...], weights: list[Any]) -> bool:
    """Whether autograd records the call; objects that are not tensors do not count."""
    return torch.is_grad_enabled() and any(
        getattr(t, "requires_grad", False) for t in (*weights, rows, *states)
    )


def has_plain_states(module: RNNBase, rows: Tensor, batch: int, states: tuple[Any, ...]) -> bool:
    """Whether initial states are absent, or plain tensors of the right number, shape and dtype."""
    if not states:
        return True
    if len(states) != (2 if module.mode == "LSTM" else 1):
        return False
    shape = (module.num_layers * (2 if module.bidirectional else 1), batch, module.hidden_size)
    dtype = rows.dtype
    for s in states:
        if type(s) is not Tensor or s.shape != shape or s.dtype is not dtype or not is_readable(s):
            return False
    return True


def has_plain_weights(module: RNNBase, weights: list[Any]) -> bool:
    """Whether the weights are the module's own parameters, not replaced: pruned, parametrized, by functional_call."""
    parameters = module._parameters
    for name, w in zip(module._flat_weights_names, weights, strict=True):
        if type(w) is not Parameter or parameters.get(name) is not w or w.is_neg():
            return False
    return True

"""One layer step by step in plain torch operations, differentiable in all ways that torch supports.

Slow; the reference that the faster backends are tested against. Double backward, `torch.func`, forward-mode AD
and complex numbers run here. The equations are those in torch's documentation of LSTM, GRU and RNN.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import linear

from .contract import Layer, LayerWeights, States

__all__ = ["run"]


def run(layer: Layer) -> tuple[Tensor, States]:
    """Output `(N, P)` and final states of one layer and direction."""
    cell, rows, schedule, states, weights, reverse, *_ = layer
    step = {"LSTM": _lstm, "GRU": _gru, "RNN_TANH": _rnn_tanh, "RNN_RELU": _rnn_relu}[cell]
    if schedule.steps == 0:
        width = states[0].shape[1]
        return rows.new_empty(0, width), states
    inputs = linear(rows, weights.w_ih, weights.b_ih).split(schedule.sizes)
    outputs: list[Tensor] = [rows] * schedule.steps
    current, ended = (tuple(s[:0] for s in states), []) if reverse else (states, [])
    for t in reversed(range(schedule.steps)) if reverse else range(schedule.steps):
        size, running = schedule.sizes[t], current[0].shape[0]
        if running > size:  # forward: the shortest sequences have ended before this step
            ended.append(tuple(s[size:] for s in current))
            current = tuple(s[:size] for s in current)
        elif running < size:  # reverse: more sequences from here on, with their initial states
            current = tuple(
                torch.cat([s, first[running:size]]) for s, first in zip(current, states, strict=True)
            )
        current = step(inputs[t], current, weights)
        outputs[t] = current[0]
    ended.append(current)
    finals = tuple(torch.cat(parts) for parts in zip(*reversed(ended), strict=True))
    return torch.cat(outputs), finals


def _lstm(gates: Tensor, states: States, weights: LayerWeights) -> States:
    h, c = states
    i, f, g, o = (gates + linear(h, weights.w_hh, weights.b_hh)).chunk(4, 1)
    c = f.sigmoid() * c + i.sigmoid() * g.tanh()
    h = o.sigmoid() * c.tanh()
    return (h if weights.w_hr is None else linear(h, weights.w_hr), c)


def _gru(gates: Tensor, states: States, weights: LayerWeights) -> States:
    (h,) = states
    r_x, z_x, n_x = gates.chunk(3, 1)
    r_h, z_h, n_h = linear(h, weights.w_hh, weights.b_hh).chunk(3, 1)
    r, z = (r_x + r_h).sigmoid(), (z_x + z_h).sigmoid()
    n = (n_x + r * n_h).tanh()
    return (n + z * (h - n),)


def _rnn_tanh(gates: Tensor, states: States, weights: LayerWeights) -> States:
    return ((gates + linear(states[0], weights.w_hh, weights.b_hh)).tanh(),)


def _rnn_relu(gates: Tensor, states: States, weights: LayerWeights) -> States:
    return ((gates + linear(states[0], weights.w_hh, weights.b_hh)).relu(),)

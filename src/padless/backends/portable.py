"""One layer forward and backward in torch operations, on any device; no autograd.

Forward: one input product for all rows, then a loop over steps that multiplies only the shrinking
batch of states. Backward: everything that does not depend on the gradient is one operation over all
rows (the *slopes*), the loop carries the gradient of the state, and every weight gradient is one product.

`saved` is what a cell's `forward` passes to its `backward`; backward never writes to it, so
`retain_graph` works. A loop step makes few calls because with few rows their overhead dominates.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..layout.schedule import Schedule
from ._products import add_product, linear, weight_gradient, write_product
from .contract import Gradients, Layer, LayerWeights, Saved, States, StatesBy

__all__ = ["STATES_BY", "backward", "forward", "infer"]

STATES_BY: StatesBy = "slot"

# What `backward` of a cell returns: gradients of the results of the input product (N, G) and of the hidden product
# (N, G), of the initial states, and of w_hr.
CellGradients = tuple[Tensor, Tensor, States, "Tensor | None"]


def forward(layer: Layer) -> tuple[Tensor, States, Saved]:
    """Output `(N, P)`, final states, and what backward needs."""
    return _FORWARD[layer.cell](layer)


def infer(layer: Layer, *, out: Tensor | None = None) -> tuple[Tensor, States]:
    """Output `(N, P)`, copied to `out` if given, and final states; nothing is kept for backward."""
    output, finals, _ = forward(layer)
    return output if out is None else out.copy_(output), finals


def backward(
    layer: Layer,
    output: Tensor,
    saved: Saved,
    grad_output: Tensor | None,
    grad_finals: Gradients,
    needs: tuple[bool, ...],
) -> Gradients:
    """Gradients of rows, states (h0 and, for an LSTM, c0) and the five weights, if `needs` asks for them."""
    rows, schedule, states, weights = layer.rows, layer.schedule, layer.states, layer.weights
    if grad_output is None:
        grad_output = torch.zeros_like(output)
    running = tuple(
        torch.zeros_like(s) if grad is None else grad.clone(memory_format=torch.contiguous_format)
        for s, grad in zip(states, grad_finals, strict=True)
    )
    previous = torch.cat([states[0], output]).index_select(
        0, schedule.previous_rows(reverse=layer.reverse).to(output.device)
    )
    d_input, d_hidden, d_states, d_w_hr = _BACKWARD[layer.cell](
        layer, previous, output, saved, grad_output, running
    )
    d_c0 = d_states[1] if len(d_states) == 2 else None
    d_bias = d_input.sum(0) if needs[5] or (needs[6] and d_hidden is d_input) else None
    if d_hidden is d_input:
        d_bias_hh = d_bias
    else:
        d_bias_hh = d_hidden.sum(0) if needs[6] else None
    return (
        linear(d_input, weights.w_ih.t()) if needs[0] else None,
        d_states[0] if needs[1] else None,
        d_c0 if needs[2] else None,
        weight_gradient(d_input, rows) if needs[3] else None,
        weight_gradient(d_hidden, previous) if needs[4] else None,
        d_bias if needs[5] else None,
        d_bias_hh if needs[6] else None,
        d_w_hr,
    )


def _steps(schedule: Schedule, *, reverse: bool) -> range:
    return range(schedule.steps)[::-1] if reverse else range(schedule.steps)


def _carried(parts: tuple[Tensor, ...], t: int, schedule: Schedule, initial: Tensor, reverse: bool) -> Tensor:
    """The states that step t starts from: the neighbouring step's rows, and initial states for those that join."""
    size = schedule.sizes[t]
    if not reverse:
        return initial if t == 0 else _first(parts[t - 1], size)
    if t == schedule.steps - 1:
        return initial[:size]
    joined = parts[t + 1]
    return joined if joined.shape[0] == size else torch.cat([joined, initial[joined.shape[0] : size]])


def _first(rows: Tensor, count: int) -> Tensor:
    return rows if rows.shape[0] == count else rows[:count]  # a slice costs as much as its arithmetic


def _finals(buffer: Tensor, schedule: Schedule, reverse: bool) -> Tensor:
    """The last row of each slot, `(slots, H)`; a copy, so that the caller may write to it."""
    if reverse:
        return buffer[: schedule.slots].clone()
    return buffer.index_select(0, schedule.last_rows.to(buffer.device))


def _both_biases(weights: LayerWeights) -> Tensor | None:
    if weights.b_ih is None or weights.b_hh is None:
        return None
    return weights.b_ih + weights.b_hh


# ---- LSTM ------------------------------------------------------------------------------------------


def _lstm_forward(layer: Layer) -> tuple[Tensor, States, Saved]:
    _, rows, schedule, states, weights, reverse, *_ = layer
    h0, c0 = states
    width = c0.shape[1]
    gates = linear(rows, weights.w_ih, _both_biases(weights))
    cells = gates.new_empty(schedule.rows, width)
    hidden = torch.empty_like(cells)  # before the projection
    output = hidden if weights.w_hr is None else gates.new_empty(schedule.rows, h0.shape[1])
    sizes = schedule.sizes
    outputs, cell_parts, hidden_parts = output.split(sizes), cells.split(sizes), hidden.split(sizes)
    gate_parts = gates.split(sizes)
    sigmoid_parts = gates[:, : 2 * width].split(sizes)
    i_parts, f_parts, g_parts, o_parts = (part.split(sizes) for part in gates.split(width, 1))
    w_hh = weights.w_hh.t()
    for t in _steps(schedule, reverse=reverse):
        add_product(gate_parts[t], _carried(outputs, t, schedule, h0, reverse), w_hh)
        sigmoid_parts[t].sigmoid_()
        g_parts[t].tanh_()
        o_parts[t].sigmoid_()
        c = torch.mul(f_parts[t], _carried(cell_parts, t, schedule, c0, reverse), out=cell_parts[t])
        c.addcmul_(i_parts[t], g_parts[t])
        h = torch.tanh(c, out=hidden_parts[t]).mul_(o_parts[t])
        if weights.w_hr is not None:
            outputs[t].copy_(linear(h, weights.w_hr))
    finals = (_finals(output, schedule, reverse), _finals(cells, schedule, reverse))
    return output, finals, (gates, cells)


def _lstm_backward(
    layer: Layer, previous: Tensor, output: Tensor, saved: Saved, grad_output: Tensor, running: States
) -> CellGradients:
    _, _, schedule, states, weights, reverse, *_ = layer
    gates, cells = saved
    dh, dc = running
    width = cells.shape[1]
    i, f, g, o = gates.split(width, 1)
    tanh_c = cells.tanh()
    c_slope = torch.addcmul(o, o * tanh_c, tanh_c, value=-1)  # dh/dc = o (1 - tanh(c)^2)
    slopes = torch.empty_like(gates)  # of the loss's dc (i, f, g) and dh (o) to the gates' inputs
    slope_i, slope_f, slope_g, slope_o = slopes.split(width, 1)
    torch.addcmul(i, i, i, value=-1, out=slope_i).mul_(g)  # g i (1 - i)
    previous_c = torch.cat([states[1], cells]).index_select(
        0, schedule.previous_rows(reverse=reverse).to(cells.device)
    )
    torch.addcmul(f, f, f, value=-1, out=slope_f).mul_(previous_c)
    torch.addcmul(i, i * g, g, value=-1, out=slope_g)  # i (1 - g^2)
    torch.addcmul(o, o, o, value=-1, out=slope_o).mul_(tanh_c)

    sizes = schedule.sizes
    grad_parts, c_slope_parts = grad_output.split(sizes), c_slope.split(sizes)
    f_parts, o_slopes, d_gate_parts = f.split(sizes), slope_o.split(sizes), slopes.split(sizes)
    ifg_slopes = slopes.view(-1, 4, width)[:, :3].split(sizes)
    projected: list[Tensor] = [dh] * schedule.steps  # gradient of the output at each step
    for t in _steps(schedule, reverse=not reverse):
        size = sizes[t]
        dh_t, dc_t = _first(dh, size), _first(dc, size)
        dh_t.add_(grad_parts[t])
        if weights.w_hr is not None:
            projected[t] = dh_t.clone()
            dh_hidden = linear(dh_t, weights.w_hr.t())
        else:
            dh_hidden = dh_t
        dc_t.addcmul_(dh_hidden, c_slope_parts[t])
        ifg_slopes[t].mul_(dc_t.unsqueeze(1))
        o_slopes[t].mul_(dh_hidden)
        dc_t.mul_(f_parts[t])
        write_product(dh_t, d_gate_parts[t], weights.w_hh)
    d_w_hr = None
    if weights.w_hr is not None:
        d_out = torch.cat(projected) if projected else grad_output
        d_w_hr = weight_gradient(d_out, o * tanh_c)
    return slopes, slopes, (dh, dc), d_w_hr


# ---- GRU -------------------------------------------------------------------------------------------


def _gru_forward(layer: Layer) -> tuple[Tensor, States, Saved]:
    _, rows, schedule, states, weights, reverse, *_ = layer
    (h0,) = states
    width, sizes = h0.shape[1], schedule.sizes
    gates = linear(rows, weights.w_ih, weights.b_ih)
    output, hidden_n = gates.new_empty(schedule.rows, width), gates.new_empty(schedule.rows, width)
    outputs, n_hidden_parts = output.split(sizes), hidden_n.split(sizes)
    rz_parts, n_parts = gates[:, : 2 * width].split(sizes), gates[:, 2 * width :].split(sizes)
    r_parts, z_parts = gates[:, :width].split(sizes), gates[:, width : 2 * width].split(sizes)
    for t in _steps(schedule, reverse=reverse):
        h = _carried(outputs, t, schedule, h0, reverse)
        product = linear(h, weights.w_hh, weights.b_hh)
        rz_parts[t].add_(product[:, : 2 * width]).sigmoid_()
        n_hidden = n_hidden_parts[t].copy_(product[:, 2 * width :])
        n = n_parts[t].addcmul_(r_parts[t], n_hidden).tanh_()
        torch.lerp(n, h, z_parts[t], out=outputs[t])  # n + z (h - n)
    return output, (_finals(output, schedule, reverse),), (gates, hidden_n)


def _gru_backward(
    layer: Layer, previous: Tensor, output: Tensor, saved: Saved, grad_output: Tensor, running: States
) -> CellGradients:
    schedule, weights = layer.schedule, layer.weights
    gates, hidden_n = saved
    (dh,) = running
    width, sizes = dh.shape[1], schedule.sizes
    r, z, n = gates.split(width, 1)
    hidden_slopes = torch.empty_like(gates)  # of dh to the result of the hidden product
    slope_r, slope_z, slope_hn = hidden_slopes.split(width, 1)
    slope_n = (1 - z) * (1 - n * n)  # of dh to n's input
    torch.addcmul(z, z, z, value=-1, out=slope_z).mul_(previous - n)  # (h - n) z (1 - z)
    torch.mul(slope_n, r, out=slope_hn)
    torch.addcmul(slope_hn, slope_hn, r, value=-1, out=slope_r).mul_(hidden_n)

    grad_parts, z_parts, n_slopes = grad_output.split(sizes), z.split(sizes), slope_n.split(sizes)
    by_gate, d_hidden_parts = hidden_slopes.view(-1, 3, width).split(sizes), hidden_slopes.split(sizes)
    for t in _steps(schedule, reverse=not layer.reverse):
        dh_t = _first(dh, sizes[t])
        dh_t.add_(grad_parts[t])
        by_gate[t].mul_(dh_t.unsqueeze(1))
        n_slopes[t].mul_(dh_t)
        add_product(dh_t.mul_(z_parts[t]), d_hidden_parts[t], weights.w_hh)
    d_input = torch.cat([hidden_slopes[:, : 2 * width], slope_n], 1)
    return d_input, hidden_slopes, (dh,), None


# ---- RNN -------------------------------------------------------------------------------------------


def _rnn_forward(layer: Layer) -> tuple[Tensor, States, Saved]:
    cell, rows, schedule, states, weights, reverse, *_ = layer
    (h0,) = states
    output = linear(rows, weights.w_ih, _both_biases(weights))
    parts, w_hh = output.split(schedule.sizes), weights.w_hh.t()
    for t in _steps(schedule, reverse=reverse):
        add_product(parts[t], _carried(parts, t, schedule, h0, reverse), w_hh)
        parts[t].relu_() if cell == "RNN_RELU" else parts[t].tanh_()
    return output, (_finals(output, schedule, reverse),), ()


def _rnn_backward(
    layer: Layer, previous: Tensor, output: Tensor, saved: Saved, grad_output: Tensor, running: States
) -> CellGradients:
    schedule = layer.schedule
    (dh,) = running
    # Of the state to the cell's input.
    slopes = (output > 0).to(output.dtype) if layer.cell == "RNN_RELU" else 1 - output * output
    sizes = schedule.sizes
    grad_parts, slope_parts = grad_output.split(sizes), slopes.split(sizes)
    for t in _steps(schedule, reverse=not layer.reverse):
        dh_t = _first(dh, sizes[t])
        d_gates = slope_parts[t].mul_(dh_t.add_(grad_parts[t]))
        write_product(dh_t, d_gates, layer.weights.w_hh)
    return slopes, slopes, (dh,), None


_FORWARD = {"LSTM": _lstm_forward, "GRU": _gru_forward, "RNN_TANH": _rnn_forward, "RNN_RELU": _rnn_forward}
_BACKWARD = {
    "LSTM": _lstm_backward,
    "GRU": _gru_backward,
    "RNN_TANH": _rnn_backward,
    "RNN_RELU": _rnn_backward,
}

"""torch's own recurrent operators on packed rows: the comparison in benchmarks, and the fast path on CUDA (cuDNN)."""

from __future__ import annotations

from torch import _VF, Tensor

from .contract import Cell, States

__all__ = ["run"]


def run(
    cell: Cell,
    rows: Tensor,
    batch_sizes: Tensor,
    states: States,
    weights: list[Tensor],
    *,
    bias: bool,
    num_layers: int,
    dropout: float,
    training: bool,
    bidirectional: bool,
) -> tuple[Tensor, States]:
    """Output `(N, D*P)` and final states `(L*D, slots, *)` of all layers; rows may not be empty."""
    options = (bias, num_layers, dropout, training, bidirectional)
    if cell == "LSTM":
        output, *finals = _VF.lstm(rows, batch_sizes, states, weights, *options)
        return output, tuple(finals)
    operator = {"GRU": _VF.gru, "RNN_TANH": _VF.rnn_tanh, "RNN_RELU": _VF.rnn_relu}[cell]
    output, h_n = operator(rows, batch_sizes, states[0], weights, *options)
    return output, (h_n,)

"""The reference: each sequence alone, step by step, by the equations in torch's documentation.

Shares no code with padless, and none with torch's recurrent layers. Everything is differentiable, so
autograd gives every gradient; give it float64 (or complex128) and it is exact for our purposes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

__all__ = ["run_layers"]


def run_layers(
    cell: str,
    weights: Mapping[str, Tensor],
    sequences: Sequence[Tensor],
    state: tuple[Tensor, ...] | None = None,
    *,
    num_layers: int = 1,
    bidirectional: bool = False,
    nonlinearity: str = "tanh",
) -> tuple[list[Tensor], tuple[Tensor, ...]]:
    """Outputs, one `(length, D*H)` a sequence, and the last state, `(h,)` or `(h, c)` of `(L*D, B, H)`.

    Args:
        cell: "RNN", "LSTM" or "GRU".
        weights: torch's names to tensors; `bias_*` and `weight_hr_*` are used where they are there.
        sequences: B tensors `(length, I)`; a length of 0 is a sequence like any other.
        state: initial `(h0,)` or `(h0, c0)`, each `(L*D, B, H)`; zeros where none is given.
    """
    directions = 2 if bidirectional else 1
    if state is None:
        state = _zero_state(cell, weights, len(sequences), num_layers * directions)
    lasts: list[list[tuple[Tensor, ...]]] = [[] for _ in range(num_layers * directions)]
    outputs = []
    for b, sequence in enumerate(sequences):
        rows = sequence
        for layer in range(num_layers):
            sides = []
            for direction in range(directions):
                k = layer * directions + direction
                suffix = f"_l{layer}" + ("_reverse" if direction else "")
                initial = tuple(s[k, b] for s in state)
                walked = rows.flip(0) if direction else rows
                side, last = _walk(cell, weights, suffix, nonlinearity, walked, initial)
                sides.append(side.flip(0) if direction else side)
                lasts[k].append(last)
            rows = torch.cat(sides, 1)
        outputs.append(rows)
    if not sequences:
        return [], state
    last_state = tuple(
        torch.stack([torch.stack([last[i] for last in lasts[k]]) for k in range(len(lasts))])
        for i in range(len(state))
    )
    return outputs, last_state


def _zero_state(
    cell: str, weights: Mapping[str, Tensor], batch: int, count: int
) -> tuple[Tensor, ...]:
    w_hh = weights["weight_hh_l0"]
    gates = {"RNN": 1, "LSTM": 4, "GRU": 3}[cell]
    h0 = w_hh.new_zeros(count, batch, w_hh.shape[1])
    return (h0, w_hh.new_zeros(count, batch, w_hh.shape[0] // gates)) if cell == "LSTM" else (h0,)


def _walk(
    cell: str,
    weights: Mapping[str, Tensor],
    suffix: str,
    nonlinearity: str,
    rows: Tensor,
    state: tuple[Tensor, ...],
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Outputs `(length, H)` and the last state of one sequence, one layer, one direction."""

    def product(side: str, vector: Tensor) -> Tensor:
        result = weights[f"weight_{side}{suffix}"] @ vector
        bias = weights.get(f"bias_{side}{suffix}")
        return result if bias is None else result + bias

    outputs = []
    for x in rows:
        h = state[0]
        if cell == "RNN":
            squash = torch.relu if nonlinearity == "relu" else torch.tanh
            state = (squash(product("ih", x) + product("hh", h)),)
        elif cell == "GRU":
            r_x, z_x, n_x = product("ih", x).chunk(3)
            r_h, z_h, n_h = product("hh", h).chunk(3)
            r, z = torch.sigmoid(r_x + r_h), torch.sigmoid(z_x + z_h)
            n = torch.tanh(n_x + r * n_h)
            state = ((1 - z) * n + z * h,)
        else:
            i, f, g, o = (product("ih", x) + product("hh", h)).chunk(4)
            c = torch.sigmoid(f) * state[1] + torch.sigmoid(i) * torch.tanh(g)
            h = torch.sigmoid(o) * torch.tanh(c)
            w_hr = weights.get(f"weight_hr{suffix}")
            state = (h if w_hr is None else w_hr @ h, c)
        outputs.append(state[0])
    width = state[0].shape[0]
    return torch.stack(outputs) if outputs else rows.new_zeros(0, width), state

"""The arguments and results that all backends share: one layer, one direction.

A backend is a module with three functions:

    infer(layer) -> output, finals
    forward(layer) -> output, finals, saved
    backward(layer, output, saved, grad_output, grad_finals, needs) -> gradients

output        `(N, P)`, where P is H or the projected width; placed like the rows
finals        like `layer.states`: the last state of each sequence in the direction of the layer
saved         tensors that `forward` keeps for `backward`
grad_finals   like `finals`; None where there is no gradient; `grad_output` likewise
needs         which gradients to compute: of rows, h0, c0, w_ih, w_hh, b_ih, b_hh and w_hr, the order of the result
"""

from __future__ import annotations

from typing import Literal, NamedTuple

from torch import Tensor

from ..layout.schedule import Schedule

__all__ = ["Cell", "Gradients", "Layer", "LayerWeights", "Saved", "States"]

Cell = Literal["LSTM", "GRU", "RNN_TANH", "RNN_RELU"]  # the names of torch's `module.mode`
States = tuple[Tensor, ...]
Saved = tuple[Tensor, ...]
Gradients = tuple["Tensor | None", ...]


class LayerWeights(NamedTuple):
    """Parameters of one layer and direction; G is 4H, 3H or H. Missing ones are None."""

    w_ih: Tensor  # (G, I)
    w_hh: Tensor  # (G, P)
    b_ih: Tensor | None  # (G,)
    b_hh: Tensor | None  # (G,)
    w_hr: Tensor | None  # (P, H), LSTM with projection only


class Layer(NamedTuple):
    """One layer in one direction with its input: everything that a backend needs to compute it.

    Attributes:
        cell: the cell type.
        rows: `(N, I)` time-major: step after step, the longest sequence first. `native` also accepts `(M, I)` with the
            rows placed as `schedule.place` says, and places its output in the same way.
        schedule: which rows run at which step, and where they are.
        states: LSTM `(h0, c0)`, else `(h0,)`; one row per slot, `(slots, H)`; h0 is `(slots, P)` with projection.
            `native` takes and returns one row per sequence, `(B, H)`, in the caller's order (`schedule.order`).
        weights: torch's own parameters and gate order.
        reverse: whether time runs from each sequence's last row to its first.
        precision: how `native` multiplies float32 and bfloat16 numbers (`_precision`); others ignore it.
    """

    cell: Cell
    rows: Tensor
    schedule: Schedule
    states: States
    weights: LayerWeights
    reverse: bool
    precision: str = "highest"

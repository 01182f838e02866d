"""The arguments and results that all backends share: one layer, one direction.

A backend is a module with a constant and three functions (`Backend`):

    STATES_BY = "slot" or "sequence"
    infer(layer, *, out=None) -> output, finals
    forward(layer) -> output, finals, saved
    backward(layer, output, saved, grad_output, grad_finals, needs) -> gradients

STATES_BY     whether states have one row per slot, `(slots, H)`, or one per sequence, `(B, H)`, in the caller's order
out           `(N, P)`, receives the output, possibly half of the columns of a wider tensor; None: a new tensor
output        `(N, P)`, where P is H or the projected width; placed like the rows
finals        like `layer.states`: the last state of each sequence in the direction of the layer
saved         tensors that `forward` keeps for `backward`; `native.forward` can also write to given ones (`saved=`)
grad_finals   like `finals`; None where there is no gradient; `grad_output` likewise
needs         which gradients to compute: of rows, h0, c0, w_ih, w_hh, b_ih, b_hh and w_hr, the order of the result
"""

from __future__ import annotations

from typing import Literal, NamedTuple, Protocol

import torch
from torch import Tensor

from ..layout.schedule import Schedule

__all__ = [
    "GATES",
    "Backend",
    "Cell",
    "Gradients",
    "Layer",
    "LayerWeights",
    "Precision",
    "Saved",
    "States",
    "StatesBy",
    "layer_output_dtype",
    "layer_weights",
    "weights_per_layer",
]

Cell = Literal["LSTM", "GRU", "RNN_TANH", "RNN_RELU"]  # the names of torch's `module.mode`
GATES = {"LSTM": 4, "GRU": 3, "RNN_TANH": 1, "RNN_RELU": 1}  # rows of the weights per hidden unit
Precision = Literal["highest", "high", "medium"]  # of products, in torch's names
States = tuple[Tensor, ...]
Saved = tuple[Tensor, ...]
Gradients = tuple["Tensor | None", ...]
StatesBy = Literal["slot", "sequence"]


class LayerWeights(NamedTuple):
    """Parameters of one layer and direction; G is 4H, 3H or H. Missing ones are None."""

    w_ih: Tensor  # (G, I)
    w_hh: Tensor  # (G, P)
    b_ih: Tensor | None  # (G,)
    b_hh: Tensor | None  # (G,)
    w_hr: Tensor | None  # (P, H), LSTM with projection only

    @property
    def is_projected(self) -> bool:
        """Whether h is a projection of the H hidden values."""
        return self.w_hr is not None

    @property
    def hidden(self) -> int:
        """H, the number of cells: the width of c."""
        return (self.w_hh if self.w_hr is None else self.w_hr).shape[1]

    @property
    def output(self) -> int:
        """P, the width of h and of the output: H without projection."""
        return self.w_hh.shape[1]


def weights_per_layer(*, bias: bool, projected: bool) -> int:
    """How many tensors of torch's flat list belong to one layer and direction."""
    return (4 if bias else 2) + (1 if projected else 0)


def layer_weights(weights: list[Tensor], place: int, *, bias: bool, projected: bool) -> LayerWeights:
    """The parameters of one layer and direction from torch's flat list; `place` counts directions, then layers."""
    count = weights_per_layer(bias=bias, projected=projected)
    mine = list(weights[place * count : (place + 1) * count])
    w_hr = mine.pop() if projected else None
    w_ih, w_hh, b_ih, b_hh = mine if bias else (*mine, None, None)
    return LayerWeights(w_ih, w_hh, b_ih, b_hh, w_hr)


def layer_output_dtype(output_dtype: torch.dtype | None, *, is_last: bool) -> torch.dtype | None:
    """The dtype of a layer's output in a network whose last layer has `output_dtype`, under autocast; else None."""
    return output_dtype if output_dtype is None or is_last else torch.bfloat16


class Layer(NamedTuple):
    """One layer in one direction with its input: everything that a backend needs to compute it.

    Attributes:
        cell: the cell type.
        rows: `(N, I)` time-major: step after step, the longest sequence first. `native` also accepts `(M, I)` with the
            rows placed as `schedule.place` says, and places its output in the same way.
        schedule: which rows run at which step, and where they are.
        states: LSTM `(h0, c0)`, else `(h0,)`; `(slots, H)` or `(B, H)` (`STATES_BY`), where h0 has P columns.
        weights: torch's own parameters and gate order.
        reverse: whether time runs from each sequence's last row to its first.
        precision: how `native` multiplies float32 and bfloat16 numbers (`_precision`); others ignore it.
        output_dtype: of the output; None: that of the rows. Only `native` takes float32 with bfloat16, under autocast.
    """

    cell: Cell
    rows: Tensor
    schedule: Schedule
    states: States
    weights: LayerWeights
    reverse: bool
    precision: Precision = "highest"
    output_dtype: torch.dtype | None = None


class Backend(Protocol):
    """What a backend module provides; see the top of this module."""

    __name__: str
    STATES_BY: StatesBy

    def infer(self, layer: Layer, *, out: Tensor | None = None) -> tuple[Tensor, States]:
        """Output and final states; nothing is kept for backward."""
        ...

    def forward(self, layer: Layer) -> tuple[Tensor, States, Saved]:
        """Output, final states, and what backward needs."""
        ...

    def backward(
        self,
        layer: Layer,
        output: Tensor,
        saved: Saved,
        grad_output: Tensor | None,
        grad_finals: Gradients,
        needs: tuple[bool, ...],
    ) -> Gradients:
        """Gradients of rows, states and weights, if `needs` asks for them."""
        ...

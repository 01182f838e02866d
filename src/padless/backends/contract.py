"""The arguments and results that all backends share: one layer, one direction.

All backends (`reference`, `portable`, `native`) use these terms:

rows      `(N, I)` time-major: step after step, the longest sequence first. `native` also takes `(M, I)` with
          the rows anywhere in it, as `schedule.place` says, and places its output alike
schedule  which rows run at which step, and where they lie (`Schedule`)
states    LSTM `(h0, c0)`, else `(h0,)`; one row a slot, `(slots, H)`; h0 is `(slots, P)` with projection. `native`
          takes and gives one row a sequence in the caller's order, `(B, H)`: `schedule.order` tells it where
weights   `LayerWeights`, torch's own parameters and gate order
output    `(N, P)`, where P is H or the projected width
finals    like `states`: each sequence's own last state in the direction of travel
"""

from __future__ import annotations

from typing import Literal, NamedTuple

from torch import Tensor

__all__ = ["Cell", "LayerWeights", "States"]

Cell = Literal["LSTM", "GRU", "RNN_TANH", "RNN_RELU"]  # the names of torch's `module.mode`
States = tuple[Tensor, ...]


class LayerWeights(NamedTuple):
    """Parameters of one layer and direction; G is 4H, 3H or H. Absent ones are None."""

    w_ih: Tensor  # (G, I)
    w_hh: Tensor  # (G, P)
    b_ih: Tensor | None  # (G,)
    b_hh: Tensor | None  # (G,)
    w_hr: Tensor | None  # (P, H), LSTM with projection only

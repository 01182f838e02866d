"""Dropout with one mask per sequence."""

from __future__ import annotations

from typing import Any

import torch

from .. import ops
from ..ops._kinds import layout_of, with_rows

__all__ = ["LockedDropout"]


class LockedDropout(torch.nn.Module):
    """Dropout that draws one mask `(*,)` for each sequence and applies it to all its rows (variational dropout).

    Source: Gal and Ghahramani, "A Theoretically Grounded Application of Dropout in Recurrent Neural Networks", 2016.

    Args:
        p: probability that an element of the row is 0 in the whole sequence; the others are divided by `1 - p`.

    Raises:
        ValueError: `p` is not in [0, 1].

    >>> import padless
    >>> batch = padless.Packed(torch.ones(4, 8), [3, 1])
    >>> first = LockedDropout(0.5)(batch)[0]
    >>> bool((first == first[0]).all())
    True
    """

    def __init__(self, p: float = 0.5) -> None:
        super().__init__()
        if not 0 <= p <= 1:
            raise ValueError(f"LockedDropout: p must be from 0 to 1, got {p}")
        self.p = p

    def forward(self, packed: Any) -> Any:
        """`packed`, a `Packed` or `PackedSequence` with data `(N, *)`; with its masks applied in training."""
        layout = layout_of(packed, "LockedDropout")
        if not self.training or self.p == 0:
            return packed
        data = packed.data
        if not data.is_floating_point():
            raise TypeError(f"LockedDropout takes floating-point data, got {data.dtype}")
        masks = data.new_zeros(layout.batch, *data.shape[1:])
        if self.p < 1:
            masks.bernoulli_(1 - self.p).div_(1 - self.p)
        return with_rows(packed, data * ops.expand(packed, masks).data)

    def extra_repr(self) -> str:
        """The arguments that `repr` shows."""
        return f"p={self.p}"

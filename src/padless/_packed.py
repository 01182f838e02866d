"""`Packed`: B sequences back to back, an immutable value of data and layout."""

from __future__ import annotations

from torch import Tensor

from ._layout import Layout

__all__ = ["Packed"]


class Packed:
    def __init__(self, data: Tensor, layout: Layout) -> None:
        self._data = data
        self._layout = layout

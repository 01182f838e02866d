"""`Packed`: B sequences back to back, an immutable value of data and layout."""

from __future__ import annotations

from torch import Tensor

from ._layout import Layout

__all__ = ["Packed"]


class Packed:
    """A batch of B sequences of different lengths: data `(N, *)` and the lengths."""

    __slots__ = ("__weakref__", "_data", "_layout")
    _data: Tensor
    _layout: Layout

    @classmethod
    def _of(cls, data: Tensor, layout: Layout) -> Packed:
        """The batch of `data (N, *)` and `layout`, which are trusted."""
        packed = object.__new__(cls)
        object.__setattr__(packed, "_data", data)
        object.__setattr__(packed, "_layout", layout)
        return packed

    @property
    def data(self) -> Tensor:
        """The rows `(N, *)`, sequence after sequence."""
        return self._data

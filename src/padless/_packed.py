"""Keeps pickles of version 0.1 loadable: they refer to `Packed` by this module's name."""

from .packed import Packed

__all__ = ["Packed"]

"""Keeps older pickles loadable: they refer to `Packed` by this module's name."""

from .packed import Packed

__all__ = ["Packed"]

"""The name under which pickles of version 0.1 hold `Packed`; kept so that they load."""

from .packed import Packed

__all__ = ["Packed"]

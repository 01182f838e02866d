"""`Packed`, a batch of B sequences without padding: value, indexing, arithmetic, packing, padding, conversions."""

from . import registration as _registration  # noqa: F401 - for what importing it does
from .packing import pack
from .value import Packed

__all__ = ["Packed", "pack"]

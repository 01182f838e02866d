"""`Packed`, B sequences without padding: value, indexing, arithmetic, packing, padding, conversions."""

from .packing import pack
from .value import Packed

__all__ = ["Packed", "pack"]

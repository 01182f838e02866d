"""`watch`: counts the padding in the batches of a running loader."""

from .watching import Watch, watch

__all__ = ["Watch", "watch"]

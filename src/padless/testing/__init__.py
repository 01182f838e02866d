"""Tools for testing models: whether the result of a sequence depends on the other sequences in its batch."""

from .invariance import Invariance, check_batch_invariance

__all__ = ["Invariance", "check_batch_invariance"]

"""Tools for the tests of models: whether a sequence's result depends on its company."""

from .invariance import Invariance, check_batch_invariance

__all__ = ["Invariance", "check_batch_invariance"]

"""Losses of ragged batches: means over the rows that count."""

from .across_ranks import global_mean

__all__ = ["global_mean"]

"""Losses of ragged batches: means over the rows that count, and over nothing else."""

from .across_ranks import global_mean

__all__ = ["global_mean"]

"""Losses of ragged batches: means over real rows that are not ignored."""

from .across_ranks import global_mean
from .rows import binary_cross_entropy_with_logits, cross_entropy, ctc_loss, mse_loss, nll_loss

__all__ = [
    "binary_cross_entropy_with_logits",
    "cross_entropy",
    "ctc_loss",
    "global_mean",
    "mse_loss",
    "nll_loss",
]

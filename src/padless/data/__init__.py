"""Batches by length: plan them, sample them on one or many machines, and collate them into `Packed`.

Every name is loaded when it is first used, so `plan` needs NumPy but never torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .. import _lazy

if TYPE_CHECKING:
    from ..planning import plan
    from .collating import collate
    from .columns import column_lengths
    from .sampling import LengthBatchSampler
    from .streaming import StreamBatches

__all__ = ["LengthBatchSampler", "StreamBatches", "collate", "column_lengths", "plan"]

_HOMES = {
    "LengthBatchSampler": "sampling",
    "StreamBatches": "streaming",
    "collate": "collating",
    "column_lengths": "columns",
    "plan": ".planning",
}  # name -> the module that defines it, `.planning` one package up

__getattr__, __dir__ = _lazy(__name__, _HOMES)

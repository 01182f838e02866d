"""Batches by length: plan them, sample them on one or many machines, and collate them into `Packed`.

Every name is loaded when it is first used, so `plan` needs NumPy but never torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..planning import plan
    from .collating import collate
    from .columns import column_lengths
    from .sampling import LengthBatchSampler
    from .streaming import StreamBatches

__all__ = ["LengthBatchSampler", "StreamBatches", "collate", "column_lengths", "plan"]

_HOMES = {
    "LengthBatchSampler": ".sampling",
    "StreamBatches": ".streaming",
    "collate": ".collating",
    "column_lengths": ".columns",
    "plan": "..planning",
}  # name -> the module that defines it


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'padless.data' has no attribute {name!r}", name=name)
    value = globals()[name] = getattr(import_module(home, __name__), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

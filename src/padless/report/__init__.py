"""The cost of padding: numbers, and a report of a file as table, page or JSON; needs no torch.

Every name is loaded when it is first used, so that the command line starts fast.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .counts import Count, Product
    from .measure import BatchWaste, Waste, waste
    from .table import waste_table

__all__ = [
    "BatchWaste",
    "Count",
    "Product",
    "Waste",
    "waste",
    "waste_table",
]

_HOMES = {
    "BatchWaste": "measure",
    "Count": "counts",
    "Product": "counts",
    "Waste": "measure",
    "waste": "measure",
    "waste_table": "table",
}  # name -> the module that defines it


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'padless.report' has no attribute {name!r}", name=name)
    value = globals()[name] = getattr(import_module(f".{home}", __name__), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

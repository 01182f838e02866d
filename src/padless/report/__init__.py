"""The cost of padding: numbers, and a report of a file as table, page or JSON; needs no torch.

Every name is loaded when it is first used, so that the command line starts fast.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .. import _lazy

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

__getattr__, __dir__ = _lazy(__name__, _HOMES)

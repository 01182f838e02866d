"""What padding costs: numbers, a report of a file, and a picture. Measuring needs no torch, and never prints."""

from .counts import Count, Product
from .measure import BatchWaste, Waste, waste
from .table import waste_table

__all__ = ["BatchWaste", "Count", "Product", "Waste", "waste", "waste_table"]

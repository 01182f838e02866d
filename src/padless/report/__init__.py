"""What padding costs: numbers, and a picture of them. Measuring needs neither torch nor NumPy, and never prints."""

from .measure import BatchWaste, Count, Product, Waste, waste
from .table import waste_table

__all__ = ["BatchWaste", "Count", "Product", "Waste", "waste", "waste_table"]

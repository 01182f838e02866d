"""What padding costs: numbers, and pictures of them. Nothing here needs torch or NumPy, and nothing prints."""

from .draw import draw_html, draw_svg, draw_text
from .measure import BatchWaste, Count, Product, Waste, waste
from .table import waste_table

__all__ = [
    "BatchWaste",
    "Count",
    "Product",
    "Waste",
    "draw_html",
    "draw_svg",
    "draw_text",
    "waste",
    "waste_table",
]

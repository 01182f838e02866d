"""Pictures of a batch as text, SVG and an interactive page; needs neither torch nor NumPy, and never prints."""

from .html import draw_html
from .svg import draw_svg
from .text import draw_text

__all__ = ["draw_html", "draw_svg", "draw_text"]

"""Pictures of a batch: text, SVG, PNG and an interactive page; needs no torch.

Every name is loaded when it is first used, so that the command line starts fast.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .. import _lazy

if TYPE_CHECKING:
    from .html import draw_html
    from .svg import draw_svg
    from .text import draw_text

__all__ = ["draw_html", "draw_svg", "draw_text"]

_HOMES = {"draw_html": "html", "draw_svg": "svg", "draw_text": "text"}  # name -> the module that defines it

__getattr__, __dir__ = _lazy(__name__, _HOMES)

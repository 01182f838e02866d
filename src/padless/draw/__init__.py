"""Pictures of a batch: text, SVG, PNG and an interactive page; needs no torch.

Every name is loaded when it is first used, so that the command line starts fast.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .html import draw_html
    from .svg import draw_svg
    from .text import draw_text

__all__ = ["draw_html", "draw_svg", "draw_text"]

_HOMES = {"draw_html": "html", "draw_svg": "svg", "draw_text": "text"}  # name -> the module that defines it


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'padless.draw' has no attribute {name!r}", name=name)
    value = globals()[name] = getattr(import_module(f".{home}", __name__), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

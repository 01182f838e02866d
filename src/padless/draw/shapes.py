"""SVG elements as text."""

from __future__ import annotations

from html import escape

from .colours import FEW, ink_on

__all__ = ["label", "rect", "short", "text"]


def rect(x: float, y: float, width: float, height: float, colour: str, more: str = "") -> str:
    """A filled rectangle; the last of the few colours comes from the style sheet, since it depends on the theme."""
    paint = 'class="last"' if colour == FEW[-1] else f'fill="{colour}"'
    return (
        f'<rect x="{short(x)}" y="{short(y)}" width="{short(width)}" height="{short(height)}" {paint}{more}/>'
    )


def text(x: float, y: float, words: str, kind: str = "", anchor: str = "start") -> str:
    """A line of text."""
    kind = f' class="{kind}"' if kind else ""
    anchor = f' text-anchor="{anchor}"' if anchor != "start" else ""
    return f'<text x="{short(x)}" y="{short(y)}"{kind}{anchor}>{escape(words)}</text>'


def label(x: float, y: float, words: str, colour: str) -> str:
    """A label centred in a cell of this colour."""
    ink = 'class="on-last"' if colour == FEW[-1] else f'style="fill:{ink_on(colour)}"'
    return f'<text x="{short(x)}" y="{short(y)}" text-anchor="middle" font-size="11" {ink}>{words}</text>'


def short(number: float) -> str:
    """A coordinate with at most two decimals."""
    return f"{round(number, 2):g}" if number < 1e5 else f"{number:.0f}"

"""Characters and colours of a terminal."""

from __future__ import annotations

from dataclasses import dataclass

from .colours import ink_on, terminal_colour
from .words import count

__all__ = ["ASCII", "UNICODE", "Glyphs", "TerminalStyle"]


@dataclass(frozen=True)
class Glyphs:
    """The characters of a picture."""

    full: str
    some: str  # a cell of a shared line in which only some sequences still run
    padding: str
    eighths: str  # a cell of a scaled line filled from the left, in eighths
    levels: str  # heights, in eighths
    more: str


UNICODE = Glyphs("█", "▒", "·", "▏▎▍▌▋▊▉", " ▁▂▃▄▅▆▇█", "…")
ASCII = Glyphs("#", "+", ".", "+++++++", "", "...")


@dataclass(frozen=True)
class TerminalStyle:
    """The width, colours and characters of a terminal."""

    width: int
    color: bool
    glyphs: Glyphs

    def count(self, number: int, noun: str = "") -> str:
        """A readable number, shortened for narrow terminals."""
        return count(number, noun, shorten_from=10**12 if self.width >= 80 else 10**6)

    def block(self, text: str, colour: str) -> str:
        """`text` on a background of this colour."""
        if not self.color:
            return text
        background = terminal_colour(colour)
        foreground = 16 if ink_on(colour) == "#000000" else 231
        return f"\033[38;5;{foreground};48;5;{background}m{text}\033[0m"

    def coloured(self, text: str, colour: str) -> str:
        """`text` in this colour."""
        return f"\033[38;5;{terminal_colour(colour)}m{text}\033[0m" if self.color and text else text

    def faint(self, text: str) -> str:
        """`text`, dimmed."""
        return f"\033[2m{text}\033[0m" if self.color and text else text

"""A batch in a terminal: the padded grid, the batch sizes and the packed rows; every line fits the width."""

from __future__ import annotations

import textwrap
from typing import Any

from ..options import whole
from .arrangement import arrange
from .colours import sequence_colours
from .terminal import ASCII, UNICODE, TerminalStyle
from .text_grid import grid_lines
from .text_memory import memory_lines
from .words import saving

__all__ = ["NARROWEST", "draw_text"]

NARROWEST = 40


def draw_text(lengths: Any, *, width: int = 80, color: bool = False, ascii_only: bool = False) -> str:
    """The padded grid, the batch size of each step and the packed rows as text.

    Large batches are scaled (steps share columns, sequences share lines) or shown in part, with a note that says so.

    Args:
        lengths: `(B,)`, in any form that `waste` accepts. They are drawn longest first, those of equal length in the
            order given, and labelled by their index.
        width: maximum number of columns; at least 40.
        color: whether to use the escape sequences of a terminal with 256 colours.
        ascii_only: whether to use ASCII only, for terminals without block characters.

    Raises:
        LengthsError: a length is negative, not whole or over 64 bits, there is no row to draw, or there are more than
            a million sequences.
        ValueError: `width` is not a whole number of at least 40.

    >>> print(draw_text([2, 3, 1]))
    padded: 3 sequences, 3 steps, 9 cells (· is padding)
    longest first, equal lengths in your order; sequences are numbered from 0
    <BLANKLINE>
      sequence  length
             1       3   1  1  1
             0       2   0  0  ·
             2       1   2  ·  ·
                  step   0  1  2
            batch size   3  2  1
    <BLANKLINE>
    packed: 6 rows, as they lie in memory
      row 0  102|10|1
    <BLANKLINE>
    6 of 9 cells are real: 3 of 9 multiplications saved
    """
    batch = arrange(lengths)
    style = TerminalStyle(whole("width", width, NARROWEST), color, ASCII if ascii_only else UNICODE)
    colours = sequence_colours(batch)
    lines = [
        *grid_lines(batch, colours, style),
        "",
        *memory_lines(batch, colours, style),
        "",
        *textwrap.wrap(saving(batch.numbers), style.width),
    ]
    return "\n".join(line.rstrip() for line in lines)

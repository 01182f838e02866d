"""The packed rows as lines of text: all of them if they fit, else the first and last steps."""

from __future__ import annotations

import textwrap

from .arrangement import Arrangement
from .terminal import TerminalStyle

__all__ = ["memory_lines"]

_LINES = 8  # maximum number of lines of rows
_SEQUENCES = 32  # at most this many are labelled in the grid above and have their own colour here


def memory_lines(batch: Arrangement, colours: list[str], style: TerminalStyle) -> list[str]:
    """The rows in memory, labelled by the index of their sequence."""
    head = f"packed: {style.count(batch.numbers.rows, 'row')}, as they lie in memory"
    lines = _every_row(batch, colours, style)
    if lines is None:
        return [*textwrap.wrap(f"{head} (the first and last steps)", style.width), *_excerpt(batch, style)]
    return [head, *lines]


def _every_row(batch: Arrangement, colours: list[str], style: TerminalStyle) -> list[str] | None:
    """All rows by their sequence's index, with bars between steps; None if there are too many."""
    rows = batch.numbers.rows
    if batch.sequences > _SEQUENCES or rows > _LINES * style.width:
        return None
    cell = len(f"{batch.sequences - 1}") + (batch.sequences > 10)  # two-digit numbers need a space between
    margin = len(f"  row {style.count(rows)}  ")
    space = style.width - margin
    lines: list[str] = []
    used, row = space, 0
    for step in range(batch.steps):
        size = batch.size(step)
        if used + 1 + size * cell > space and used:  # start a new line if the step does not fit
            lines.append("")
            used = 0
        elif used:
            lines[-1] += "|"
            used += 1
        for slot in range(size):
            if used + cell > space:
                lines.append("")
                used = 0
            lines[-1] = lines[-1] or f"  row {style.count(row):>{margin - 8}}  "
            lines[-1] += style.block(f"{batch.order[slot]:>{cell}}", colours[slot])
            used, row = used + cell, row + 1
    return lines if len(lines) <= _LINES else None


def _excerpt(batch: Arrangement, style: TerminalStyle) -> list[str]:
    """The first and the last steps, one line each, with their rows."""
    few = batch.steps <= 7
    steps = list(range(batch.steps)) if few else [*range(4), batch.steps - 2, batch.steps - 1]
    rows = [style.count(batch.row(step, 0)) for step in steps]
    names = [style.count(step) for step in steps]
    row_width, step_width = max(map(len, rows)), max(map(len, names))
    lines = []
    for step, row, name in zip(steps, rows, names, strict=True):
        head = f"  row {row:>{row_width}}  step {name:>{step_width}}  "
        lines.append(head + _listed(batch, batch.size(step), style.width - len(head), style))
    return lines if few else [*lines[:4], f"  {style.glyphs.more}", *lines[4:]]


def _listed(batch: Arrangement, size: int, space: int, style: TerminalStyle) -> str:
    """How many rows a step has, and as many of their sequences as fit."""
    text = f"{style.count(size, 'row')}:"
    if len(text) > space:
        return style.count(size)
    for slot in range(size):
        longer = f"{text} {batch.order[slot]}"
        rest = 0 if slot == size - 1 else len(style.glyphs.more) + 1
        if len(longer) + rest > space:
            return f"{text} {style.glyphs.more}" if slot else text.rstrip(":")
        text = longer
    return text

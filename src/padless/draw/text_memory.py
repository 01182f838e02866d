"""The packed rows as lines of text: all of them if they fit, else the first and last steps."""

from __future__ import annotations

import textwrap

from .arrangement import Arrangement
from .pen import Pen

__all__ = ["memory_lines"]

_LINES = 8  # at most this many lines of rows
_SEQUENCES = 32  # at most this many are labelled in the grid above, and told apart here


def memory_lines(batch: Arrangement, colours: list[str], pen: Pen) -> list[str]:
    """The rows in memory, by the index of their sequence."""
    head = f"packed: {pen.count(batch.numbers.rows, 'row')}, as they lie in memory"
    lines = _every_row(batch, colours, pen)
    if lines is None:
        return [*textwrap.wrap(f"{head} (the first and last steps)", pen.width), *_excerpt(batch, pen)]
    return [head, *lines]


def _every_row(batch: Arrangement, colours: list[str], pen: Pen) -> list[str] | None:
    """All rows by their sequence's index, a bar between two steps; None where they are too many."""
    rows = batch.numbers.rows
    if batch.sequences > _SEQUENCES or rows > _LINES * pen.width:
        return None
    cell = len(f"{batch.sequences - 1}") + (batch.sequences > 10)  # two figures need a blank between
    margin = len(f"  row {pen.count(rows)}  ")
    room = pen.width - margin
    lines: list[str] = []
    used, row = room, 0
    for step in range(batch.steps):
        size = batch.size(step)
        if used + 1 + size * cell > room and used:  # a step begins a new line where it does not fit
            lines.append("")
            used = 0
        elif used:
            lines[-1] += "|"
            used += 1
        for slot in range(size):
            if used + cell > room:
                lines.append("")
                used = 0
            lines[-1] = lines[-1] or f"  row {pen.count(row):>{margin - 8}}  "
            lines[-1] += pen.block(f"{batch.order[slot]:>{cell}}", colours[slot])
            used, row = used + cell, row + 1
    return lines if len(lines) <= _LINES else None


def _excerpt(batch: Arrangement, pen: Pen) -> list[str]:
    """The first and the last steps, a line each, with the rows that they take."""
    few = batch.steps <= 7
    steps = list(range(batch.steps)) if few else [*range(4), batch.steps - 2, batch.steps - 1]
    rows = [pen.count(batch.row(step, 0)) for step in steps]
    names = [pen.count(step) for step in steps]
    row_width, step_width = max(map(len, rows)), max(map(len, names))
    lines = []
    for step, row, name in zip(steps, rows, names, strict=True):
        head = f"  row {row:>{row_width}}  step {name:>{step_width}}  "
        lines.append(head + _listed(batch, batch.size(step), pen.width - len(head), pen))
    return lines if few else [*lines[:4], f"  {pen.glyphs.more}", *lines[4:]]


def _listed(batch: Arrangement, size: int, room: int, pen: Pen) -> str:
    """How many rows a step has, and as many of their sequences as there is room for."""
    text = f"{pen.count(size, 'row')}:"
    if len(text) > room:
        return pen.count(size)
    for slot in range(size):
        longer = f"{text} {batch.order[slot]}"
        rest = 0 if slot == size - 1 else len(pen.glyphs.more) + 1
        if len(longer) + rest > room:
            return f"{text} {pen.glyphs.more}" if slot else text.rstrip(":")
        text = longer
    return text

"""A batch in a terminal: the padded grid, the packed rows, the batch sizes; every line fits the width."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass
from typing import Any

from .arrangement import Arrangement, Band, arrange
from .colours import ink_on, sequence_colours, terminal_colour
from .words import count, saving

__all__ = ["draw_text"]

_LINES = 32  # at most this many lines of grid; above it several sequences share one
_MEMORY_LINES = 8  # at most this many lines of rows in memory; above it the first and last steps are told
_NARROWEST = 40


@dataclass(frozen=True)
class _Glyphs:
    full: str
    some: str  # a cell of a shared line where some sequences still run
    padding: str
    eighths: str  # a cell of a scaled line that is filled from the left, by eighths
    levels: str  # heights, by eighths
    more: str


_UNICODE = _Glyphs("█", "▒", "·", "▏▎▍▌▋▊▉", " ▁▂▃▄▅▆▇█", "…")
_ASCII = _Glyphs("#", "+", ".", "+++++++", "", "...")


@dataclass(frozen=True)
class _Pen:
    width: int
    color: bool
    glyphs: _Glyphs

    def count(self, number: int, noun: str = "") -> str:
        """A number for people, shorter where the lines are."""
        return count(number, noun, shorten_from=10**12 if self.width >= 64 else 10**6)

    def block(self, text: str, colour: str) -> str:
        """`text` on a ground of the colour."""
        if not self.color:
            return text
        ground = terminal_colour(colour)
        ink = 16 if ink_on(colour) == "#000000" else 231
        return f"\033[38;5;{ink};48;5;{ground}m{text}\033[0m"

    def ink(self, text: str, colour: str) -> str:
        """`text` in the colour."""
        return f"\033[38;5;{terminal_colour(colour)}m{text}\033[0m" if self.color and text else text

    def faint(self, text: str) -> str:
        return f"\033[2m{text}\033[0m" if self.color and text else text


def draw_text(lengths: Any, *, width: int = 80, color: bool = False, ascii_only: bool = False) -> str:
    """The padded grid, the batch size of each step and the packed rows as text.

    What does not fit is scaled, or an excerpt, and says so: many steps share a column, many sequences a line.

    Args:
        lengths: `(B,)` of any kind that `waste` takes. They are drawn longest first, those of equal length in the order
            given, and labelled by their index.
        width: columns that no line exceeds; at least 40.
        color: with the escape sequences of a terminal of 256 colours.
        ascii_only: for terminals that have no block characters.

    Raises:
        LengthsError: a length is negative, not whole or over 64 bits, or there is no row to draw.

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
    6 of 9 cells are real: 3 multiplications in 9 saved
    """
    batch = arrange(lengths)
    pen = _Pen(max(width, _NARROWEST), color, _ASCII if ascii_only else _UNICODE)
    colours = sequence_colours(batch)
    lines = [
        *_grid(batch, colours, pen),
        "",
        *_packed(batch, colours, pen),
        "",
        *textwrap.wrap(saving(batch.numbers), pen.width),
    ]
    return "\n".join(line.rstrip() for line in lines)


# ---- the grid -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Scale:
    """How a grid of B by T cells stands in characters."""

    bands: list[Band]
    steps: int  # a column
    columns: int
    cell: int  # characters a column
    left: tuple[int, int]  # widths of the two columns of labels

    @property
    def shared(self) -> int:
        """Sequences a line."""
        return self.bands[0].stop


def _scale(batch: Arrangement, pen: _Pen) -> _Scale:
    bands = batch.bands(_LINES)
    names = max(len("sequence"), max(len(_name(batch, band)) for band in bands))
    left = (names, max(len("batch size") - 2 - names, len("length"), len(pen.count(batch.steps))))
    room = pen.width - sum(left) - 6
    digits = max(len(f"{batch.sequences}"), len(f"{batch.steps - 1}"))
    for cell in (digits + 2, digits + 1, 1):
        if batch.steps * cell <= room:
            return _Scale(bands, 1, batch.steps, cell, left)
    steps = -(-batch.steps // room)
    return _Scale(bands, steps, -(-batch.steps // steps), 1, left)


def _grid(batch: Arrangement, colours: list[str], pen: _Pen) -> list[str]:
    scale = _scale(batch, pen)
    shared = scale.shared > 1
    head = [
        f"padded: {pen.count(batch.sequences, 'sequence')}, {pen.count(batch.steps, 'step')}, "
        f"{pen.count(batch.numbers.cells, 'cell')} ({pen.glyphs.padding} is padding)",
        "longest first, equal lengths in your order"
        + ("" if shared else "; sequences are numbered from 0"),
    ]
    if shared or scale.steps > 1:
        head.append("scaled: " + ", ".join(_scaled(scale, pen)))
    rows = []
    for band in scale.bands:
        label = _left(scale, _name(batch, band), pen.count(band.longest))
        rows.append(label + _line(batch, band, scale, colours[(band.start + band.stop - 1) // 2], pen))
    labels = _left(scale, "slots" if shared else "sequence", "up to" if shared else "length")
    return [
        *(line for text in head for line in textwrap.wrap(text, pen.width)),
        "",
        pen.faint(labels.rstrip()),
        *rows,
        *_steps(batch, scale, pen),
    ]


def _scaled(scale: _Scale, pen: _Pen) -> list[str]:
    parts = []
    if scale.steps > 1:
        parts.append(f"one column is {pen.count(scale.steps)} steps")
    if scale.shared > 1:
        parts.append(
            f"one line is {pen.count(scale.shared)} sequences ({pen.glyphs.some} where only some cells are real)"
        )
    return parts


def _name(batch: Arrangement, band: Band) -> str:
    if band.stop - band.start > 1:
        return f"{band.start}-{band.stop - 1}"
    return f"{batch.order[band.start]}"


def _left(scale: _Scale, name: str, number: str) -> str:
    return f"  {name:>{scale.left[0]}}  {number:>{scale.left[1]}}  "


def _line(batch: Arrangement, band: Band, scale: _Scale, colour: str, pen: _Pen) -> str:
    """One sequence, or several, as real cells and padding."""
    whole, some, eighths = _filled(band, scale, batch.steps)
    padding = pen.faint(pen.glyphs.padding.center(scale.cell) * (scale.columns - whole - some - bool(eighths)))
    if scale.shared == 1 and scale.cell > 1:
        return pen.block(f"{batch.order[band.start]}".center(scale.cell) * whole, colour) + padding
    bar = pen.glyphs.full * (scale.cell * whole) + pen.glyphs.some * (scale.cell * some)
    if eighths:
        bar += pen.glyphs.eighths[eighths - 1]
    return pen.ink(bar, colour) + padding


def _filled(band: Band, scale: _Scale, steps: int) -> tuple[int, int, int]:
    """Columns whose cells are all real; those where some are, on a shared line; eighths of the next, on one's own."""
    whole = scale.columns if band.shortest == steps else band.shortest // scale.steps
    if scale.shared > 1:
        return whole, -(-band.longest // scale.steps) - whole, 0
    rest = 0 if band.longest == steps else band.longest % scale.steps
    return whole, 0, min(max(1, 8 * rest // scale.steps), 7) if rest else 0


def _steps(batch: Arrangement, scale: _Scale, pen: _Pen) -> list[str]:
    """The axis below the grid: steps, and how many sequences run at each."""
    sizes = [batch.size(column * scale.steps) for column in range(scale.columns)]
    apart = 1
    if scale.cell == 1:
        widest = max(len(pen.count(batch.steps)), len(pen.count(batch.sequences)))
        apart = min(max(8, widest + 2), scale.columns)  # columns between two numbers
    ticks = range(0, scale.columns, apart)
    numbers = {
        "step": [pen.count(column * scale.steps) for column in ticks],
        "batch size": [pen.count(sizes[column]) for column in ticks],
    }
    if scale.cell == 1:
        fitting = sum(column + len(pen.count(batch.steps)) <= scale.columns for column in ticks) or 1
        lines = {name: "".join(text.ljust(apart) for text in texts[:fitting]) for name, texts in numbers.items()}
        if pen.glyphs.levels:
            heights = (-(-8 * size // batch.sequences) for size in sizes)
            lines[""] = "".join(pen.glyphs.levels[height] for height in heights)
    else:
        lines = {name: "".join(text.center(scale.cell) for text in texts) for name, texts in numbers.items()}
    margin = sum(scale.left) + 4
    return [f"{name:>{margin}}  {line}" for name, line in lines.items()]


# ---- memory -------------------------------------------------------------------------------------------


def _packed(batch: Arrangement, colours: list[str], pen: _Pen) -> list[str]:
    head = f"packed: {pen.count(batch.numbers.rows, 'row')}, as they lie in memory"
    lines = _every_row(batch, colours, pen)
    if lines is None:
        return [*textwrap.wrap(f"{head} (the first and last steps)", pen.width), *_excerpt(batch, pen)]
    return [head, *lines]


def _every_row(batch: Arrangement, colours: list[str], pen: _Pen) -> list[str] | None:
    """All rows by their sequence's index, a bar between two steps; None where they are too many."""
    rows = batch.numbers.rows
    if batch.sequences > _LINES or rows > _MEMORY_LINES * pen.width:
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
    return lines if len(lines) <= _MEMORY_LINES else None


def _excerpt(batch: Arrangement, pen: _Pen) -> list[str]:
    """The first and the last steps, a line each, with the rows that they take."""
    steps = list(range(batch.steps)) if batch.steps <= 7 else [*range(4), -1, batch.steps - 2, batch.steps - 1]
    widths = [len(pen.count(number)) for number in (batch.steps, batch.numbers.rows)]
    lines = []
    for step in steps:
        if step < 0:
            lines.append(f"  {pen.glyphs.more}")
            continue
        first, size = batch.row(step, 0), batch.size(step)
        head = f"  row {pen.count(first):>{widths[1]}}  step {pen.count(step):>{widths[0]}}  "
        lines.append(head + _listed(batch, size, pen.width - len(head), pen))
    return lines


def _listed(batch: Arrangement, size: int, room: int, pen: _Pen) -> str:
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

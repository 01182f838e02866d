"""A batch as SVG: grid, batch sizes and memory; the size of the file is bounded."""

from __future__ import annotations

from html import escape
from itertools import pairwise
from textwrap import wrap
from typing import Any

from .arrangement import Arrangement, arrange
from .colours import mean_colours, sequence_colours
from .shapes import label, rect, short, text
from .words import count, plain, saving

__all__ = ["STYLE", "draw_svg"]

_LEFT, _ACROSS, _RIGHT = 84, 856, 20  # margin, picture, margin
_LINE, _TALLEST, _BANDS = 26, 364, 182  # height of a sequence; of the grid; most lines, of at least two units
_STRIP = 28  # the height of the rows in memory
_PIECES = 428  # of a memory strip with too many rows to draw one by one

STYLE = """
.padless-batch { font-family: system-ui, -apple-system, "Segoe UI", sans-serif; font-size: 12px }
.padless-batch .paper { fill: #fcfbf8 }
.padless-batch text { fill: #1d2330 }
.padless-batch .head { font-size: 16px; font-weight: 600 }
.padless-batch .quiet { fill: #5a6170 }
.padless-batch .hatch { stroke: #a9adb6 }
.padless-batch .line { stroke: #fcfbf8 }
.padless-batch .frame { fill: none; stroke: #7a8090 }
.padless-batch .sizes { fill: #46618f }
.padless-batch .last { fill: #000000 }
.padless-batch text.on-last { fill: #ffffff }
@media (prefers-color-scheme: dark) {
.padless-batch .paper { fill: #15181d }
.padless-batch text { fill: #e9e7e2 }
.padless-batch .quiet { fill: #a3a9b5 }
.padless-batch .hatch { stroke: #5b616d }
.padless-batch .line { stroke: #15181d }
.padless-batch .frame { stroke: #858b99 }
.padless-batch .sizes { fill: #8fb0e0 }
.padless-batch .last { fill: #f2f2f2 }
.padless-batch text.on-last { fill: #000000 }
}
"""


def draw_svg(lengths: Any, *, name: str = "") -> str:
    """The padded grid, the batch sizes and the packed rows as an SVG document; light or dark like the reader's system.

    Sequences are drawn longest first, those of equal length in the order given, and labelled by their index. Large
    batches are scaled, with a note that says so; the document stays under 200 kB.

    Args:
        lengths: `(B,)`, in any form that `waste` accepts.
        name: the source of the lengths, for the title.

    Raises:
        LengthsError: a length is negative, not whole or over 64 bits, there is no row to draw, or there are more than
            a million sequences.

    >>> draw_svg([4, 6, 8]).startswith('<svg xmlns="http://www.w3.org/2000/svg"')
    True
    """
    batch = arrange(lengths)
    colours = sequence_colours(batch)
    parts: list[str] = []
    y = _grid(parts, batch, colours, 20)
    y = _sizes(parts, batch, y + 6)
    y = _memory(parts, batch, colours, y + 34)
    for line in wrap(saving(batch.numbers), 80):
        y += 30
        parts.append(text(_LEFT, y + 10, line, "head"))
    width, height = _LEFT + _ACROSS + _RIGHT, round(y + 32)
    title = f"{plain(name)}: {saving(batch.numbers)}" if name else saving(batch.numbers)
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}"',
            f'height="{height}" role="img" class="padless-batch">',
            f"<title>{escape(title)}</title>",
            f"<desc>{escape(_description(batch))}</desc>",
            f"<style>{STYLE}</style>",
            '<defs><pattern id="padless-hatch" width="6" height="6" patternUnits="userSpaceOnUse"',
            'patternTransform="rotate(45)"><path class="hatch" d="M0 0V6"/></pattern></defs>',
            f'<rect class="paper" width="{width}" height="{height}"/>',
            *parts,
            "</svg>\n",
        ]
    )


def _description(batch: Arrangement) -> str:
    shown = batch.runs[:20]
    sizes = "; ".join(
        f"{count(run.size)} at steps {count(run.start)} to {count(run.stop - 1)}" for run in shown
    )
    more = "; and so on" if len(batch.runs) > len(shown) else ""
    return (
        f"{count(batch.sequences, 'sequence')}, longest first, in a grid of {count(batch.steps, 'step')}. "
        f"Sequences that run: {sizes}{more}. Below, the {count(batch.numbers.rows, 'real row')} as they lie in memory, "
        "step after step."
    )


# ---- the grid -----------------------------------------------------------------------------------------


def _grid(parts: list[str], batch: Arrangement, colours: list[str], y: float) -> float:
    """Draw the grid below `y`; return its lower end."""
    padding = batch.numbers.cells - batch.numbers.rows
    parts.append(
        text(
            _LEFT,
            y + 16,
            f"Padded: {count(batch.numbers.cells, 'cell')}, {count(padding)} of them padding",
            "head",
        )
    )
    bands = batch.bands(_BANDS)
    shared = bands[0].stop
    quiet = "longest first; labels are indices, from 0"
    if shared > 1:
        quiet = f"scaled: one line is {count(shared)} sequences, paler where only some still run"
    parts.append(text(_LEFT + _ACROSS, y + 16, quiet, "quiet", "end"))
    y += 32
    line = min(_LINE, _TALLEST / len(bands))
    cell = _ACROSS / batch.steps
    gap = 1.5 if line >= 6 else 0
    end = y + line * len(bands)
    parts.append(
        f'<rect x="{_LEFT}" y="{short(y)}" width="{_ACROSS}" height="{short(end - y)}" fill="url(#padless-hatch)"/>'
    )
    for i, band in enumerate(bands):
        top = y + i * line
        colour = colours[(band.start + band.stop - 1) // 2]
        if band.longest:  # at least one unit, so that every sequence with a row is visible
            faint = ' opacity="0.5"' if band.shortest < band.longest else ""
            parts.append(rect(_LEFT, top, max(band.longest * cell, 1), line - gap, colour, faint))
        if 0 < band.shortest < band.longest:
            parts.append(rect(_LEFT, top, band.shortest * cell, line - gap, colour))
        if line >= 11:
            parts.append(text(_LEFT - 8, top + line / 2 + 4, f"{batch.order[band.start]}", "quiet", "end"))
    if line < 11:
        parts.append(text(_LEFT - 8, y + 10, "longest", "quiet", "end"))
        parts.append(text(_LEFT - 8, end, "shortest", "quiet", "end"))
    if cell >= 8:
        path = "".join(
            f"M{short(_LEFT + step * cell)} {short(y)}V{short(end)}" for step in range(1, batch.steps)
        )
        parts.append(f'<path class="line" stroke-width="1.5" d="{path}"/>')
    if line >= 14:
        _labels(parts, batch, colours, y, line, cell)
    return end


def _labels(
    parts: list[str], batch: Arrangement, colours: list[str], y: float, line: float, cell: float
) -> None:
    """The sequence's index in each real cell, if it fits."""
    if cell < 8 + 7 * len(f"{batch.sequences - 1}"):
        return
    for slot, length in enumerate(batch.lengths):
        for step in range(length):
            x, middle = _LEFT + (step + 0.5) * cell, y + (slot + 0.5) * line + 3.5
            parts.append(label(x, middle, f"{batch.order[slot]}", colours[slot]))


def _sizes(parts: list[str], batch: Arrangement, y: float) -> float:
    """The batch size of each step, as numbers if they fit, else as a falling line with some numbers."""
    cell = _ACROSS / batch.steps
    if cell >= 12 + 7 * max(len(count(batch.sequences)), len(count(batch.steps))):
        for step in range(batch.steps):
            x = _LEFT + (step + 0.5) * cell
            parts.append(text(x, y + 12, count(step), "quiet", "middle"))
            parts.append(text(x, y + 30, count(batch.size(step)), "", "middle"))
        names, bottom = y + 12, y + 30
    else:
        high, columns = 44, min(batch.steps, _ACROSS)
        path = f"M{_LEFT} {short(y + high)}"
        for column in range(columns):
            size = batch.size(column * batch.steps // columns)
            right = _LEFT + (column + 1) * _ACROSS / columns
            path += f"V{short(y + high - high * size / batch.sequences)}H{short(right)}"
        parts.append(f'<path class="sizes" d="{path}V{short(y + high)}Z"/>')
        for tick in range(min(8, batch.steps)):
            step = tick * batch.steps // min(8, batch.steps)
            x = _LEFT + step * cell
            parts.append(text(x, y + high + 14, count(step), "quiet"))
            parts.append(text(x, y + high + 30, count(batch.size(step))))
        names, bottom = y + high + 14, y + high + 30
    parts.append(text(_LEFT - 8, names, "step", "quiet", "end"))
    parts.append(text(_LEFT - 8, bottom, "batch size", "", "end"))
    return bottom


# ---- memory -------------------------------------------------------------------------------------------


def _memory(parts: list[str], batch: Arrangement, colours: list[str], y: float) -> float:
    """All rows in one strip, on the scale of the grid's cells: the missing part is what padding adds."""
    rows, cells = batch.numbers.rows, batch.numbers.cells
    place = _ACROSS / cells
    parts.append(text(_LEFT, y + 16, f"Packed: {count(rows, 'row')}, as they lie in memory", "head"))
    one_by_one = place >= 4
    if not one_by_one:
        parts.append(
            text(_LEFT + _ACROSS, y + 16, "scaled: the mean colour of neighbouring rows", "quiet", "end")
        )
    y += 30
    if rows < cells:
        parts.append(
            f'<rect class="frame" x="{short(_LEFT + rows * place)}" y="{short(y + 0.5)}" '
            f'width="{short((cells - rows) * place)}" height="{_STRIP - 1}" stroke-dasharray="2 3"/>'
        )
        missing = f"{count(cells - rows, 'cell')} never computed"
        if 7 * len(missing) < (cells - rows) * place:
            middle = _LEFT + (rows + cells) / 2 * place
            parts.append(text(middle, y + _STRIP / 2 + 4, missing, "quiet", "middle"))
    pieces = rows if one_by_one else min(_PIECES, rows)
    bounds = [i * rows // pieces for i in range(pieces + 1)]
    shown = mean_colours(batch, colours, bounds)
    for (start, stop), colour in zip(pairwise(bounds), shown, strict=True):
        overlap = 0 if one_by_one else 1  # otherwise the background shows between two pieces
        parts.append(rect(_LEFT + start * place, y, (stop - start) * place + overlap, _STRIP, colour))
        if one_by_one and place >= 5 + 7 * len(f"{batch.sequences - 1}"):
            index = batch.order[batch.place(start)[1]]
            parts.append(label(_LEFT + (start + 0.5) * place, y + _STRIP / 2 + 4, f"{index}", colour))
    if one_by_one:
        starts = [batch.row(step, 0) for step in range(1, batch.steps)]
        path = "".join(f"M{short(_LEFT + row * place)} {short(y)}v{_STRIP}" for row in starts)
        parts.append(f'<path class="line" stroke-width="3" d="{path}"/>')
    _ticks(parts, batch, place, y + _STRIP + 16)
    return y + _STRIP + 16


def _ticks(parts: list[str], batch: Arrangement, place: float, y: float) -> None:
    """Under the strip: the first row of as many steps as fit."""
    parts.append(text(_LEFT - 8, y, "row", "quiet", "end"))
    free = 0.0
    for run in batch.runs:
        many = run.stop - run.start if batch.steps <= _PIECES else 1
        for step in range(run.start, run.start + many):
            row = batch.row(step, 0)
            x, words = _LEFT + row * place, count(row)
            if x >= free:
                parts.append(text(x, y, words, "quiet"))
                free = x + 7 * len(words) + 12

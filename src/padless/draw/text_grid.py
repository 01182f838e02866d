"""The padded grid and its batch sizes, as lines of text."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass

from .arrangement import Arrangement, Band
from .terminal import TerminalStyle

__all__ = ["grid_lines"]

_LINES = 32  # at most this many lines; more sequences share lines


@dataclass(frozen=True)
class _Scale:
    """The scale of a grid of B by T cells in characters."""

    bands: list[Band]
    steps: int  # per column
    columns: int
    cell: int  # characters per column
    left: tuple[int, int]  # widths of the two columns of labels

    @property
    def shared(self) -> int:
        """Sequences per line."""
        return self.bands[0].stop


def _scale(batch: Arrangement, style: TerminalStyle) -> _Scale:
    bands = batch.bands(_LINES)
    names = max(len("sequence"), *(len(_name(batch, band, bands[0].stop)) for band in bands))
    numbers = max(
        len("batch size") - 2 - names, len("length"), *(len(style.count(band.longest)) for band in bands)
    )
    left = (names, numbers)
    space = style.width - sum(left) - 6
    digits = max(len(f"{batch.sequences}"), len(f"{batch.steps - 1}"))
    for cell in (digits + 2, digits + 1, 1):
        if batch.steps * cell <= space:
            return _Scale(bands, 1, batch.steps, cell, left)
    steps = -(-batch.steps // space)
    return _Scale(bands, steps, -(-batch.steps // steps), 1, left)


def grid_lines(batch: Arrangement, colours: list[str], style: TerminalStyle) -> list[str]:
    """A heading, one line per sequence or per several, the steps below, and the scale."""
    scale = _scale(batch, style)
    shared = scale.shared > 1
    sizes = ((batch.sequences, "sequence"), (batch.steps, "step"), (batch.numbers.cells, "cell"))
    head = [
        f"padded: {', '.join(style.count(*size) for size in sizes)} ({style.glyphs.padding} is padding)",
        "longest first, equal lengths in your order" + ("" if shared else "; sequences are numbered from 0"),
    ]
    if shared or scale.steps > 1:
        head.append("scaled: " + ", ".join(_scaled(scale, style)))
    rows = []
    for band in scale.bands:
        label = _left(scale, _name(batch, band, scale.shared), style.count(band.longest))
        rows.append(label + _line(batch, band, scale, colours[(band.start + band.stop - 1) // 2], style))
    labels = _left(scale, "slots" if shared else "sequence", "up to" if shared else "length")
    return [
        *(line for text in head for line in textwrap.wrap(text, style.width)),
        "",
        style.faint(labels.rstrip()),
        *rows,
        *_steps(batch, scale, style),
    ]


def _scaled(scale: _Scale, style: TerminalStyle) -> list[str]:
    parts = []
    if scale.steps > 1:
        parts.append(f"one column is {style.count(scale.steps)} steps")
    if scale.shared > 1:
        parts.append(
            f"one line is {style.count(scale.shared)} sequences ({style.glyphs.some} where only some cells are real)"
        )
    return parts


def _name(batch: Arrangement, band: Band, shared: int) -> str:
    """The sequence's index; for a shared line, its slots."""
    if shared == 1:
        return f"{batch.order[band.start]}"
    return f"{band.start}-{band.stop - 1}" if band.stop - band.start > 1 else f"{band.start}"


def _left(scale: _Scale, name: str, number: str) -> str:
    return f"  {name:>{scale.left[0]}}  {number:>{scale.left[1]}}  "


def _line(batch: Arrangement, band: Band, scale: _Scale, colour: str, style: TerminalStyle) -> str:
    """One sequence, or several, as real cells and padding."""
    whole, some, eighths = _filled(band, scale, batch.steps)
    padding = style.faint(
        style.glyphs.padding.center(scale.cell) * (scale.columns - whole - some - bool(eighths))
    )
    if scale.shared == 1 and scale.cell > 1:
        return style.block(f"{batch.order[band.start]}".center(scale.cell) * whole, colour) + padding
    bar = style.glyphs.full * (scale.cell * whole) + style.glyphs.some * (scale.cell * some)
    if eighths:
        bar += style.glyphs.eighths[eighths - 1]
    return style.coloured(bar, colour) + padding


def _filled(band: Band, scale: _Scale, steps: int) -> tuple[int, int, int]:
    """Columns with only real cells; with some, on a shared line; eighths of the next one, on an unshared line."""
    whole = scale.columns if band.shortest == steps else band.shortest // scale.steps
    if scale.shared > 1:
        return whole, -(-band.longest // scale.steps) - whole, 0
    rest = 0 if band.longest == steps else band.longest % scale.steps
    return whole, 0, min(max(1, 8 * rest // scale.steps), 7) if rest else 0


def _steps(batch: Arrangement, scale: _Scale, style: TerminalStyle) -> list[str]:
    """The axis below the grid: steps and their batch sizes."""
    steps = [style.count(column * scale.steps) for column in range(scale.columns)]
    sizes = [batch.size(column * scale.steps) for column in range(scale.columns)]
    lines = {"step": steps, "batch size": [style.count(size) for size in sizes]}
    if scale.cell > 1:
        lines = {name: "".join(text.center(scale.cell) for text in texts) for name, texts in lines.items()}
    else:
        apart = max(8, *(len(text) + 2 for texts in lines.values() for text in texts))
        ticks = [c for c in range(0, scale.columns, apart) if c == 0 or c + apart - 2 <= scale.columns]
        lines = {name: "".join(texts[c].ljust(apart) for c in ticks) for name, texts in lines.items()}
        if style.glyphs.levels:
            heights = (-(-8 * size // batch.sequences) for size in sizes)
            lines[""] = "".join(style.glyphs.levels[height] for height in heights)
    margin = sum(scale.left) + 4
    return [f"{name:>{margin}}  {line}".rstrip() for name, line in lines.items()]

"""A batch as a PNG: the padded grid above, the packed rows in memory below (extra `plot`)."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from ..errors import PadlessError
from ..outputs import write
from .arrangement import Arrangement, arrange
from .colours import mean_colours, sequence_colours
from .words import count

__all__ = ["save_picture"]

_PADDING, _HATCH, _INK = "#ececec", "#bdbdbd", "#31446b"
_STRIPS = 32  # at most this many sequences have a visible gap between them, and a label
_BANDS = 300  # lines of the grid; more sequences share lines
_NUMBERED = 40  # up to this many steps are drawn separately, each with its batch size
_PIECES = 1500  # roughly the picture's width in pixels


def save_picture(lengths: Any, path: str | Path) -> None:
    """Write a PNG of one batch to `path`: padded above, packed below; each sequence keeps its colour.

    Args:
        lengths: `(B,)`, in any form that `waste` accepts; sequences are drawn longest first and labelled by index.

    Raises:
        LengthsError: a length is negative, not whole or over 64 bits, there is no row to draw, or there are more than
            a million sequences.
        PadlessError: Matplotlib is not installed (extra `plot`), or the file cannot be written.
    """
    batch = arrange(lengths)
    try:
        from matplotlib import figure as figures
        from matplotlib.backends.backend_agg import FigureCanvasAgg
    except ImportError as error:
        raise PadlessError("pictures need Matplotlib: pip install matplotlib") from error

    colours = sequence_colours(batch)
    figure = figures.Figure(figsize=(11, 7.4), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    grid, packed, running = figure.subplots(3, 1, height_ratios=[5, 1.6, 1.9])
    _draw_grid(grid, batch, colours)
    _draw_packed(packed, batch, colours)
    _draw_sizes(running, batch)
    running.yaxis.get_major_locator().set_params(integer=True)
    for axes in (grid, packed, running):
        axes.spines[["top", "right"]].set_visible(False)
        axes.xaxis.set_major_formatter("{x:,.0f}")
        axes.xaxis.get_major_locator().set_params(integer=True)
    picture = io.BytesIO()
    figure.savefig(picture, format="png")
    write(Path(path), picture.getvalue())


def _draw_grid(axes: Any, batch: Arrangement, colours: list[str]) -> None:
    bands = batch.bands(_BANDS)
    middles = [(band.start + band.stop - 1) / 2 for band in bands]
    # Gaps separate sequences, but not bands, whose edges must not show.
    height = 0.92 if batch.sequences <= _STRIPS else bands[0].stop
    shades = [colours[int(middle)] for middle in middles]
    axes.barh(
        middles,
        [batch.steps - band.longest for band in bands],
        left=[band.longest for band in bands],
        height=height,
        color=_PADDING,
        hatch="////",
        edgecolor=_HATCH,
        linewidth=0,
    )
    axes.barh(middles, [band.longest for band in bands], height=height, color=shades, alpha=0.5)
    axes.barh(middles, [band.shortest for band in bands], height=height, color=shades)
    if batch.steps <= _NUMBERED:
        axes.vlines(range(1, batch.steps), -0.5, batch.sequences - 0.5, color="white", linewidth=1)
    label = "sequence, longest first"
    if batch.sequences <= _STRIPS:
        axes.set_yticks(range(batch.sequences), [f"{index}" for index in batch.order])
    else:
        axes.yaxis.get_major_locator().set_params(integer=True)
        label = "slot, longest first"
        if bands[0].stop > 1:
            label += f"; one line is {bands[0].stop:,}"
    axes.set(xlim=(0, batch.steps), ylim=(batch.sequences - 0.5, -0.5), xlabel="step", ylabel=label)
    numbers = batch.numbers
    axes.set_title(
        f"padded: {count(numbers.cells, 'cell')}, {numbers.wasted_percent:.0f} % of them padding (hatched)",
        loc="left",
    )


def _draw_packed(axes: Any, batch: Arrangement, colours: list[str]) -> None:
    """Memory on the scale of the grid's cells, so that the missing part is what padding adds."""
    from matplotlib.colors import to_rgb

    rows, cells = batch.numbers.rows, batch.numbers.cells
    pieces = min(rows, _PIECES)  # with more rows, neighbours are drawn in their mean colour
    bounds = [i * rows // pieces for i in range(pieces + 1)]
    axes.imshow(
        [[to_rgb(colour) for colour in mean_colours(batch, colours, bounds)]],
        aspect="auto",
        extent=(0, rows, 0, 1),
        interpolation="antialiased",
    )
    if batch.steps <= _NUMBERED:
        axes.vlines([batch.row(step, 0) for step in range(1, batch.steps)], 0, 1, color="white", linewidth=2)
    axes.set(xlim=(0, cells), ylim=(0, 1), yticks=[], xlabel="row in memory, step after step")
    missing = count(cells - rows, "cell")
    scaled = " (scaled: mean colours)" if pieces < rows else ""
    axes.set_title(
        f"packed: {count(rows, 'row')} and nothing else; {missing} never computed{scaled}", loc="left"
    )


def _draw_sizes(axes: Any, batch: Arrangement) -> None:
    runs = batch.runs[:: -(-len(batch.runs) // _PIECES)]
    axes.stairs(
        [run.size for run in runs], [*(run.start for run in runs), batch.steps], fill=True, color=_INK
    )
    if batch.steps <= _NUMBERED:
        for step in range(batch.steps):
            size = batch.size(step)
            axes.text(step + 0.5, size, f"{size}", ha="center", va="bottom", color=_INK)
    axes.set(xlim=(0, batch.steps), ylim=(0, batch.size(0) * 1.25), xlabel="step", ylabel="sequences")
    axes.set_title("batch sizes: sequences still running at each step", loc="left")

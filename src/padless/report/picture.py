"""One batch as a PNG: the padded grid above, the packed rows as they lie in memory below (extra `plot`)."""

from __future__ import annotations

from itertools import accumulate
from pathlib import Path
from typing import Any

from ..errors import LengthsError, PadlessError
from .host_lengths import host_lengths
from .measure import waste

__all__ = ["save_picture"]

# For readers with and without colour vision deficiency: Okabe and Ito's colours for a few sequences, shades of
# viridis for many. Neither has a grey, which is the padding's.
_FEW = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#56B4E9", "#CC79A7", "#F0E442", "#000000")
_MANY = "viridis"
_PADDING, _HATCH, _INK = "#ececec", "#bdbdbd", "#31446b"
_STRIPS = 32  # at most this many sequences keep a gap between them that the eye can see
_NUMBERED = 40  # at most this many steps are told apart and have their batch size written


def save_picture(lengths: Any, path: str | Path) -> None:
    """Write a PNG of one batch to `path`: padded above, packed below; each sequence keeps its colour.

    Args:
        lengths: `(B,)` of any kind that `waste` takes; sequences are drawn longest first.

    Raises:
        LengthsError: there is no row to draw.
        PadlessError: Matplotlib is not installed (extra `plot`).
        OSError: the file cannot be written.
    """
    values = sorted(host_lengths(lengths), reverse=True)
    if not any(values):
        raise LengthsError("lengths have no rows, so there is nothing to draw")
    try:
        from matplotlib import colormaps
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.colors import ListedColormap
        from matplotlib.figure import Figure
    except ImportError as error:
        raise PadlessError("pictures need Matplotlib: pip install 'padless[plot]'") from error

    last = max(len(values) - 1, 1)
    colours = ListedColormap(
        [*_FEW[: last + 1]]
        if last < len(_FEW)
        else [colormaps[_MANY](slot / last) for slot in range(last + 1)]
    )
    sizes = _batch_sizes(values)
    figure = Figure(figsize=(11, 7.4), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    grid, packed, running = figure.subplots(3, 1, height_ratios=[5, 1.6, 1.9])
    _draw_grid(grid, values, colours)
    _draw_packed(packed, values, sizes, colours)
    _draw_sizes(running, sizes)
    for axes in (grid, running):
        axes.yaxis.get_major_locator().set_params(integer=True)
    for axes in (grid, packed, running):
        axes.spines[["top", "right"]].set_visible(False)
        axes.xaxis.set_major_formatter("{x:,.0f}")
        axes.xaxis.get_major_locator().set_params(integer=True)
    figure.savefig(path, format="png")


def _draw_grid(axes: Any, values: list[int], colours: Any) -> None:
    numbers, steps = waste(values), values[0]
    slots = range(len(values))
    height = 0.92 if len(values) <= _STRIPS else 1
    padding = [steps - length for length in values]
    axes.barh(
        slots,
        padding,
        left=values,
        height=height,
        color=_PADDING,
        hatch="////",
        edgecolor=_HATCH,
        linewidth=0,
    )
    axes.barh(slots, values, height=height, color=[colours(slot) for slot in slots])
    if steps <= _NUMBERED:
        axes.vlines(range(1, steps), -0.5, len(values) - 0.5, color="white", linewidth=1)
    axes.set(xlim=(0, steps), ylim=(len(values) - 0.5, -0.5), xlabel="step", ylabel="sequence, longest first")
    axes.set_title(
        f"padded: {numbers.cells:,} cells, {numbers.wasted_percent:.0f} % of them padding (hatched)",
        loc="left",
    )


def _draw_packed(axes: Any, values: list[int], sizes: list[int], colours: Any) -> None:
    """Memory on the scale of the grid's cells, so that what is missing is what padding adds."""
    rows, cells = sum(sizes), len(values) * values[0]
    axes.imshow(
        [[slot for size in sizes for slot in range(size)]],
        aspect="auto",
        cmap=colours,
        vmin=0,
        vmax=max(len(values) - 1, 1),
        extent=(0, rows, 0, 1),
        interpolation="antialiased",
        interpolation_stage="rgba",  # a pixel of many rows has the mean of their colours, not of their numbers
    )
    if len(sizes) <= _NUMBERED:
        axes.vlines(list(accumulate(sizes))[:-1], 0, 1, color="white", linewidth=2)
    axes.set(xlim=(0, cells), ylim=(0, 1), yticks=[], xlabel="row in memory, step after step")
    axes.set_title(
        f"packed: {rows:,} rows and nothing else; {cells - rows:,} cells are never computed", loc="left"
    )


def _draw_sizes(axes: Any, sizes: list[int]) -> None:
    axes.stairs(sizes, range(len(sizes) + 1), fill=True, color=_INK)
    if len(sizes) <= _NUMBERED:
        for step, size in enumerate(sizes):
            axes.text(step + 0.5, size, f"{size}", ha="center", va="bottom", color=_INK)
    axes.set(xlim=(0, len(sizes)), ylim=(0, sizes[0] * 1.25), xlabel="step", ylabel="sequences")
    axes.set_title("batch sizes: sequences still running at each step", loc="left")


def _batch_sizes(longest_first: list[int]) -> list[int]:
    ended = [0] * (longest_first[0] + 1)
    for length in longest_first:
        ended[length] += 1
    running, sizes = len(longest_first), []
    for count in ended[:-1]:
        running -= count
        sizes.append(running)
    return sizes

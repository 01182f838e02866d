"""One batch as a PNG: the padded grid above, the packed rows as they lie in memory below (extra `plot`)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..errors import LengthsError, PadlessError
from .host_lengths import host_lengths
from .measure import waste

__all__ = ["save_picture"]

_STRIPS = 32  # at most this many sequences keep a strip that the eye can follow
_PADDING = "#e4e4e4"


def save_picture(lengths: Any, path: str | Path) -> None:
    """Write a PNG of one batch to `path`: padded above, packed below; each sequence keeps its colour.

    Args:
        lengths: `(B,)` of any kind that `waste` takes; sequences are drawn longest first.

    Raises:
        LengthsError: there is no row to draw.
        PadlessError: Matplotlib is not installed (extra `plot`).
    """
    values = sorted(host_lengths(lengths), reverse=True)
    if not any(values):
        raise LengthsError("lengths have no rows, so there is nothing to draw")
    try:
        from matplotlib import colormaps
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise PadlessError("pictures need Matplotlib: pip install 'padless[plot]'") from error

    # cividis is made to look the same to readers with and without colour vision deficiency
    colours = [colormaps["cividis"](k / max(len(values) - 1, 1)) for k in range(len(values))]
    figure = Figure(figsize=(11, 7.4), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    grid, packed, sizes = figure.subplots(3, 1, height_ratios=[5, 2.2, 1.5])
    numbers, steps = waste(values), values[0]
    cells = numbers.cells

    grid.set_facecolor(_PADDING)
    every = range(len(values))
    grid.barh(
        every,
        [steps - n for n in values],
        left=values,
        height=1,
        color=_PADDING,
        hatch="////",
        edgecolor="#bdbdbd",
        linewidth=0,
    )
    grid.barh(every, values, height=1 if len(values) > _STRIPS else 0.92, color=colours)
    grid.set(xlim=(0, steps), ylim=(len(values) - 0.5, -0.5), xlabel="step", ylabel="sequence, longest first")
    grid.set_title(
        f"padded: {cells:,} cells, {numbers.wasted_percent:.0f} % of them padding (hatched)", loc="left"
    )

    # Packed order is step after step, so a sequence's share of the rows falls and ends where it ends.
    batch_sizes = _batch_sizes(values)
    starts = [0]
    for size in batch_sizes:
        starts.append(starts[-1] + size)
    packed.imshow(
        [_memory(values, batch_sizes, starts)],
        aspect="auto",
        cmap="cividis",
        interpolation="nearest",
        extent=(0, numbers.rows, 0, 1),
        vmin=0,
        vmax=max(len(values) - 1, 1),
    )
    packed.axvspan(numbers.rows, cells, facecolor="white", hatch="", edgecolor="none")
    packed.set(
        xlim=(0, cells),
        ylim=(0, 1),
        yticks=[],
        xlabel="row in memory, step after step (same scale as the cells above)",
    )
    packed.set_title(f"packed: {numbers.rows:,} rows, nothing else", loc="left")
    packed.text(
        numbers.rows + (cells - numbers.rows) / 2,
        0.5,
        f"{cells - numbers.rows:,} cells never computed",
        ha="center",
        va="center",
        color="#555555",
    )

    sizes.fill_between(range(steps + 1), [*batch_sizes, batch_sizes[-1]], step="post", color="#31446b")
    sizes.set(xlim=(0, steps), ylim=(0, len(values) * 1.05), xlabel="step", ylabel="sequences")
    sizes.set_title("batch_sizes: sequences still running at each step", loc="left")
    for axes in (grid, packed, sizes):
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, format="png")


def _batch_sizes(longest_first: list[int]) -> list[int]:
    ended = [0] * (longest_first[0] + 1)
    for length in longest_first:
        ended[length] += 1
    running, sizes = len(longest_first), []
    for count in ended[:-1]:
        running -= count
        sizes.append(running)
    return sizes


def _memory(longest_first: list[int], batch_sizes: list[int], starts: list[int]) -> list[float]:
    """The sequence of each row in memory."""
    return [float(slot) for size in batch_sizes for slot in range(size)]

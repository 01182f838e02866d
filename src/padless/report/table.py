"""Waste as a text table; returns strings and prints nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from .measure import Waste

__all__ = ["aligned", "waste_table"]

_HEADINGS = ("", "sequences", "batches", "rows needed", "cells padded", "fill", "wasted")


def waste_table(wastes: Mapping[str, Waste]) -> str:
    """A table with one line a waste, by name; columns are aligned, lines do not end in blanks.

    >>> from padless.report import waste
    >>> lengths = [4, 6, 8, 5, 4, 3, 7, 8]
    >>> print(waste_table({"one batch": waste(lengths), "sorted": waste(lengths, batch_size=4, policy="sorted")}))
               sequences  batches  rows needed  cells padded    fill  wasted
    one batch          8        1           45            64  70.3 %  29.7 %
    sorted             8        2           45            52  86.5 %  13.5 %
    """
    return aligned([_HEADINGS, *(_cells(name, numbers) for name, numbers in wastes.items())])


def aligned(lines: Sequence[Sequence[str]]) -> str:
    """Lines of cells one below the other, the first cell of each to the left and the others to the right."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(
            [
                line[0].ljust(widths[0]),
                *(cell.rjust(width) for cell, width in zip(line[1:], widths[1:], strict=True)),
            ]
        ).rstrip()
        for line in lines
    )


def _cells(name: str, numbers: Waste) -> tuple[str, ...]:
    return (
        name,
        f"{numbers.sequences:,}",
        f"{len(numbers.batches):,}",
        f"{numbers.rows:,}",
        f"{numbers.cells:,}",
        f"{100 * numbers.fill:.1f} %",
        f"{numbers.wasted_percent:.1f} %",
    )

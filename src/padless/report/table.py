"""Waste as a text table, returned as strings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from .measure import Waste

__all__ = ["aligned", "waste_table"]

_HEADINGS = ("", "sequences", "batches", "rows needed", "cells padded", "fill", "wasted")


def waste_table(wastes: Mapping[str, Waste]) -> str:
    """A table with one line per named waste; columns are aligned, lines have no trailing blanks.

    >>> from padless.report import waste
    >>> lengths = [4, 6, 8, 5, 4, 3, 7, 8]
    >>> print(waste_table({"one batch": waste(lengths), "sorted": waste(lengths, batch_size=4, policy="sorted")}))
               sequences  batches  rows needed  cells padded    fill  wasted
    one batch          8        1           45            64  70.3 %  29.7 %
    sorted             8        2           45            52  86.5 %  13.5 %
    """
    return aligned([_HEADINGS, *(_cells(name, numbers) for name, numbers in wastes.items())])


def aligned(lines: Sequence[Sequence[str]]) -> str:
    """Lines of cells in columns, the first column aligned left and the others right."""
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

"""The contents of a report, shared by the terminal, the page and JSON."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from .counts import Count, Counted, Product
from .network import Network
from .reading.collected import printable
from .spread import Spread
from .survey import PolicyWaste
from .table import aligned

__all__ = ["Measured", "Report", "Timing", "seconds_text"]


@dataclass(frozen=True)
class Timing:
    """Seconds for the sampled batches of one policy, padded and by padless."""

    batches: int
    rows: int
    cells: int
    padded_seconds: float
    padless_seconds: float

    @property
    def ratio(self) -> float:
        """Time of the padded batches relative to padless."""
        return self.padded_seconds / self.padless_seconds


@dataclass(frozen=True)
class Measured:
    """Timings by policy, and a description of how they were measured."""

    how: tuple[str, ...]
    timings: dict[str, Timing]


@dataclass(frozen=True)
class Report:
    """All results for one file."""

    source: str
    column: str | None
    unit: str  # what was counted: "lengths" (nothing), "words" or "items"
    spread: Spread
    policies: tuple[PolicyWaste, ...]
    over: int  # sequences longer than the tokens of a batch
    width: int
    network: Network | None
    measured: Measured | None = None
    note: str | None = None  # how the file was read, if that is ambiguous

    def with_measured(self, measured: Measured) -> Report:
        """The same report with timings."""
        return replace(self, measured=measured)

    def title(self) -> str:
        """The source of the sequences, and their number."""
        where = self.source if self.column is None else f"{self.source}, column {printable(self.column)}"
        if self.note is not None:
            where += f" ({self.note})"
        sequences = _plural(self.spread.sequences, "length" if self.unit == "lengths" else "sequence")
        rows = _plural(self.spread.rows, "row" if self.unit == "lengths" else self.unit.removesuffix("s"))
        return f"{where}: {sequences}, {rows}"

    def spread_text(self) -> str:
        """Statistics of the lengths."""
        return f"{self.spread}" + (f"; {self.spread.empty:,} empty" if self.spread.empty else "")

    def headings(self) -> tuple[str, ...]:
        """Headings of `lines`."""
        flops = ("FLOPs",) if self.network else ()
        return (
            "policy",
            "batches",
            "rows",
            "cells",
            "fill",
            "wasted",
            "multiplications",
            "additions",
            *flops,
        )

    def lines(self) -> list[tuple[str, ...]]:
        """One line per policy, and one for what is needed with any policy."""
        lines = [
            (each.batching.policy, f"{each.batches:,}", *self._cells(each, each.cells, padded=True))
            for each in self.policies
        ]
        any_policy = self.policies[0]
        return [*lines, ("needed", "", *self._cells(any_policy, any_policy.rows, padded=False))]

    def _cells(self, counted: Counted, cells: int, *, padded: bool) -> tuple[str, ...]:
        fill = counted.fill if padded else 1.0
        counts: list[Count] = [*counted.product(self.width)]
        if self.network:
            counts.append(self.network.flops(counted))
        return (
            f"{counted.rows:,}",
            f"{cells:,}",
            f"{100 * fill:.1f} %",
            f"{100 - 100 * fill:.1f} %",
            *(f"{count.padded if padded else count.needed:,}" for count in counts),
        )

    def notes(self) -> list[str]:
        """The meaning of the columns, and how batches were made."""
        notes = [
            *self._batch_notes(),
            "needed: the work for the real rows, however they are batched, which is what padless computes",
        ]
        width = f"rows of width {self.width:,}"
        notes.append(f"multiplications, additions: of one output column of a matrix product over {width}")
        if self.network:
            notes.append(f"FLOPs: {self.network}; matrix products only, a multiply-add is 2")
        return notes

    def _batch_notes(self) -> list[str]:
        notes = []
        by_size: dict[str, list[str]] = {}
        for each in self.policies:
            by_size.setdefault(_size_text(each), []).append(each.batching.policy)
        notes += [f"{', '.join(names)}: {size}" for size, names in by_size.items()]
        if self.over:
            notes.append(
                f"{_plural(self.over, 'sequence')} longer than the budget: "
                + ("a batch of its own" if self.over == 1 else "each is a batch of its own")
            )
        return notes

    def text(self) -> str:
        """The report as text for the terminal."""
        parts = [self.title(), self.spread_text(), "", aligned([self.headings(), *self.lines()]), ""]
        parts += self.notes()
        if self.measured:
            parts += ["", aligned([self.timing_headings(), *self.timing_lines()]), "", *self.measured.how]
        return "\n".join(parts)

    def timing_headings(self) -> tuple[str, ...]:
        """Headings of `timing_lines`."""
        return ("measured", "batches", "of the rows", "epoch padded", "epoch padless", "ratio")

    def timing_lines(self) -> list[tuple[str, ...]]:
        """One line per timed policy: the sample, and the estimated seconds of an epoch."""
        lines = []
        for each in self.policies:
            timing = self._timing(each)
            if timing is not None:
                padded, padless = _epoch_seconds(each, timing)
                lines.append(
                    (
                        each.batching.policy,
                        f"{timing.batches:,} of {each.batches:,}",
                        f"{100 * timing.rows / each.rows:.1f} %",
                        seconds_text(padded),
                        seconds_text(padless),
                        f"{timing.ratio:.2f}",
                    )
                )
        return lines

    def _timing(self, each: PolicyWaste) -> Timing | None:
        return self.measured.timings.get(each.batching.policy) if self.measured else None

    def as_json(self) -> dict[str, Any]:
        """The report as JSON-serialisable data."""
        return {
            "sequences": self.spread.sequences,
            "rows": self.spread.rows,
            "policies": [self._policy_as_json(each) for each in self.policies],
        }

    def _policy_as_json(self, each: PolicyWaste) -> dict[str, Any]:
        batching = each.batching
        product: Product = each.product(self.width)
        numbers: dict[str, Any] = {
            "policy": batching.policy,
            "batch_size": batching.batch_size,
            "tokens": batching.tokens,
            "padded": batching.padded,
            "seed": batching.seed,
            "batches": each.batches,
            "rows": each.rows,
            "cells": each.cells,
            "fill": each.fill,
            "wasted_percent": each.wasted_percent,
            "width": self.width,
            "multiplications": product.multiplications._asdict(),
            "additions": product.additions._asdict(),
        }
        if self.network:
            numbers["network"] = {**vars(self.network)}
            numbers["flops"] = self.network.flops(each)._asdict()
        timing = self._timing(each)
        if timing is not None:
            padded, padless = _epoch_seconds(each, timing)
            numbers["measured"] = {
                **vars(timing),
                "ratio": timing.ratio,
                "epoch_padded_seconds": padded,
                "epoch_padless_seconds": padless,
            }
        return numbers


def _epoch_seconds(counted: PolicyWaste, timing: Timing) -> tuple[float, float]:
    """Seconds of all batches, padded and by padless: those of the sample, scaled by cells and by rows.

    If the policy shares lines, both scale by rows, because the sampled grids do not share lines.
    """
    rows = counted.rows / timing.rows
    cells = rows if counted.batching.is_shared else counted.cells / timing.cells
    return timing.padded_seconds * cells, timing.padless_seconds * rows


def seconds_text(seconds: float) -> str:
    """A time as text, in milliseconds if it is short."""
    return f"{seconds:,.3f} s" if seconds >= 0.1 else f"{1000 * seconds:.3f} ms"


def _size_text(each: PolicyWaste) -> str:
    batching = each.batching
    if batching.tokens is None:
        return f"{_plural(batching.batch_size or 0, 'sequence')} per batch"
    if batching.is_shared:
        return f"up to {batching.tokens:,} rows per batch, back to back in one line of as many cells"
    return f"up to {batching.tokens:,} {'cells' if batching.padded else 'rows'} per batch"


def _plural(count: int, noun: str) -> str:
    return f"{count:,} {noun}" + ("" if count == 1 else "s")

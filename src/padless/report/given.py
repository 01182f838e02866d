"""Batches filled in the order of the given lengths, with integers only and without NumPy."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

__all__ = ["POLICIES", "Numbers", "given_batches", "given_bounds"]

POLICIES = ("given", "random", "bucket", "sorted", "binpack")  # here because `measure` takes long to import
Numbers = tuple[int, int, int, int, int]  # the fields of a `BatchWaste`


def given_batches(
    lengths: Sequence[int], *, batch_size: int | None, tokens: int | None, padded: bool
) -> Iterator[Numbers]:
    """The fields of `BatchWaste` for each batch, filled in the order given; without a size, one batch of all."""
    for start, stop in given_bounds(lengths, batch_size=batch_size, tokens=tokens, padded=padded):
        batch = lengths[start:stop]
        yield len(batch), len(batch) - batch.count(0), sum(batch), len(batch), max(batch)


def given_bounds(
    lengths: Sequence[int], *, batch_size: int | None, tokens: int | None, padded: bool
) -> Iterator[tuple[int, int]]:
    """Start and end of each of these batches."""
    if tokens is not None:
        return _by_tokens(lengths, tokens, padded)
    size = batch_size or max(len(lengths), 1)
    return ((start, min(start + size, len(lengths))) for start in range(0, len(lengths), size))


def _by_tokens(lengths: Sequence[int], tokens: int, padded: bool) -> Iterator[tuple[int, int]]:
    """As many sequences as fit the budget, at least one; a sequence of length 0 counts as a row, as in `plan`."""
    start = rows = longest = 0
    for place, length in enumerate(lengths):
        cost = length or 1
        rows += cost
        longest = max(longest, cost)
        if place > start and (longest * (place + 1 - start) if padded else rows) > tokens:
            yield start, place
            start, rows, longest = place, cost, cost
    if lengths:
        yield start, len(lengths)

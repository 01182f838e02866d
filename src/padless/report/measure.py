"""How many rows a set of lengths needs, and how many cells a padded grid would compute; integers only."""

from __future__ import annotations

import difflib
import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

from .host_lengths import host_lengths

__all__ = ["BatchWaste", "Count", "Product", "Waste", "waste"]

POLICIES = ("given", "random", "sorted")
_GATES = {"rnn": 1, "lstm": 4, "gru": 3}


class Count(NamedTuple):
    """How often something is done: as often as needed, and as often as padding makes it."""

    needed: int
    padded: int

    @property
    def saved(self) -> int:
        """What is done for nothing when padded."""
        return self.padded - self.needed


class Product(NamedTuple):
    """Operations of one output column of a matrix product over time."""

    multiplications: Count
    additions: Count


class _Fill:
    """What follows from rows and cells."""

    __slots__ = ()
    rows: int
    cells: int

    @property
    def fill(self) -> float:
        """The part of the cells that is real, 0 to 1; 1.0 where there are no cells, for nothing is wasted."""
        return self.rows / self.cells if self.cells else 1.0

    @property
    def wasted_percent(self) -> float:
        """Per cent of the cells that are padding."""
        return 100 * (1 - self.fill)


@dataclass(frozen=True)
class BatchWaste(_Fill):
    """One batch: B sequences, those of length 0 included, in a grid of B times T cells."""

    sequences: int
    nonempty: int  # sequences that have a row at all
    steps: int  # T, the longest length
    rows: int

    @property
    def cells(self) -> int:  # type: ignore[override]
        """Cells of the padded grid."""
        return self.sequences * self.steps


@dataclass(frozen=True)
class Waste(_Fill):
    """What all batches need and what padding makes of it.

    >>> numbers = waste([4, 6, 8, 5, 4, 3, 7, 8])
    >>> numbers.rows, numbers.cells, numbers.fill
    (45, 64, 0.703125)
    >>> print(numbers)
    45 rows of 64 cells: 29.7 % wasted, 8 sequences in 1 batch
    """

    batches: tuple[BatchWaste, ...]
    rows: int
    cells: int

    @property
    def sequences(self) -> int:
        """B, the sequences of all batches, those of length 0 included."""
        return sum(batch.sequences for batch in self.batches)

    def product(self, width: int = 1) -> Product:
        """Multiplications and additions, needed and padded, of one output column of a product over time.

        A sequence of n rows of `width` numbers is multiplied with one column of n * width weights: n * width
        multiplications, and one addition fewer. A sequence of length 0 needs neither.

        >>> numbers = waste([9, 8, 6, 4, 3, 2])
        >>> numbers.product(1)
        Product(multiplications=Count(needed=32, padded=54), additions=Count(needed=26, padded=48))
        """
        width = _positive("width", width)
        sums = sum(batch.nonempty for batch in self.batches)
        padded_sums = sum(batch.sequences for batch in self.batches if batch.steps)
        return Product(
            multiplications=Count(self.rows * width, self.cells * width),
            additions=Count(self.rows * width - sums, self.cells * width - padded_sums),
        )

    def flops(
        self,
        cell: str,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bidirectional: bool = False,
        training: bool = False,
    ) -> Count:
        """Floating-point operations of the matrix products of a recurrent network, needed and padded.

        A multiply-add counts 2. A row costs 2 * G * (I + H) a layer and direction, with G gate rows (H, 3 H or
        4 H); training costs three times as much, for backward has two products for each one of forward. Element-wise
        work is not counted.

        Args:
            cell: `"rnn"`, `"lstm"` or `"gru"`.
            input_size, hidden_size, num_layers, bidirectional: as of `torch.nn.LSTM`.
            training: whether backward runs too.

        >>> waste([3, 1]).flops("lstm", 10, 20)
        Count(needed=19200, padded=28800)
        """
        gates = _GATES.get(str(cell).lower())
        if gates is None:
            raise ValueError(f"cell must be one of 'rnn', 'lstm', 'gru', got {cell!r}")
        width, hidden_size = _positive("input_size", input_size), _positive("hidden_size", hidden_size)
        directions = 2 if bidirectional else 1
        a_row = 0
        for _ in range(_positive("num_layers", num_layers)):
            a_row += directions * 2 * gates * hidden_size * (width + hidden_size)
            width = directions * hidden_size
        if training:
            a_row *= 3
        return Count(self.rows * a_row, self.cells * a_row)

    def __str__(self) -> str:
        batches = f"{len(self.batches):,} batch" + ("" if len(self.batches) == 1 else "es")
        sequences = f"{self.sequences:,} sequence" + ("" if self.sequences == 1 else "s")
        return (
            f"{self.rows:,} rows of {self.cells:,} cells: {self.wasted_percent:.1f} % wasted, "
            f"{sequences} in {batches}"
        )


def waste(lengths: Any, *, batch_size: int | None = None, policy: str = "given", seed: int = 0) -> Waste:
    """Rows needed and cells computed when sequences of these lengths are padded batch by batch.

    Args:
        lengths: list, tuple, NumPy array, tensor `(B,)` on any device, or any other iterable of whole
            numbers, 0 allowed. No sequences at all give no batch and waste nothing.
        batch_size: sequences a batch; the last batch may have fewer. None: one batch of all.
        policy: the order in which batches are filled. `"given"`: as passed; `"sorted"`: longest first;
            `"random"`: shuffled by `seed`.
        seed: of `policy="random"`.

    Raises:
        LengthsError: a length is negative or not whole; the message names the first one.
        ValueError: a batch size below 1, or a policy that is not there.

    >>> waste([4, 6, 8, 5, 4, 3, 7, 8], batch_size=4, policy="sorted").cells
    52
    """
    values = host_lengths(lengths)
    if batch_size is None:
        batch_size = max(len(values), 1)
    batch_size = _positive("batch_size", batch_size)
    if policy == "sorted":
        values.sort(reverse=True)
    elif policy == "random":
        random.Random(seed).shuffle(values)
    elif policy != "given":
        close = difflib.get_close_matches(str(policy), POLICIES, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        raise ValueError(f"policy must be one of {', '.join(map(repr, POLICIES))}, got {policy!r}{hint}")
    batches = tuple(_batches(values, batch_size))
    return Waste(batches, sum(batch.rows for batch in batches), sum(batch.cells for batch in batches))


def _batches(values: list[int], batch_size: int) -> Iterator[BatchWaste]:
    for start in range(0, len(values), batch_size):
        batch = values[start : start + batch_size]
        yield BatchWaste(len(batch), len(batch) - batch.count(0), max(batch), sum(batch))


def _positive(name: str, value: Any) -> int:
    if isinstance(value, bool) or not hasattr(value, "__index__") or value.__index__() < 1:
        raise ValueError(f"{name} must be a whole number of at least 1, got {value!r}")
    return value.__index__()

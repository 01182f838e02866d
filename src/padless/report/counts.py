"""Numbers derived from rows and cells: fill, multiplications, additions, FLOPs; in exact integers."""

from __future__ import annotations

from typing import NamedTuple

from ..options import flag, named, whole

__all__ = ["Count", "Counted", "Product"]

_GATES = {"rnn": 1, "lstm": 4, "gru": 3}


class Count(NamedTuple):
    """The number of operations that are needed, and that are executed with padding."""

    needed: int
    padded: int

    @property
    def saved(self) -> int:
        """The number of operations wasted by padding."""
        return self.padded - self.needed


class Product(NamedTuple):
    """Operations of one output column of a matrix product over time."""

    multiplications: Count
    additions: Count


class Counted:
    """Rows that are needed, cells that padding computes, and what follows from them."""

    __slots__ = ()
    rows: int
    cells: int

    @property
    def sums(self) -> Count:
        """Sums over time: needed, one per non-empty sequence; padded, one per line of the grid."""
        raise NotImplementedError

    @property
    def fill(self) -> float:
        """The fraction of real cells, 0 to 1; 1.0 if there are no cells, since nothing is wasted."""
        return self.rows / self.cells if self.cells else 1.0

    @property
    def wasted_percent(self) -> float:
        """Percentage of cells that are padding."""
        return 100 * (1 - self.fill)

    def product(self, width: int = 1) -> Product:
        """Multiplications and additions, needed and padded, of one output column of a product over time.

        A sequence of n rows of `width` numbers is multiplied by one column of n * width weights: n * width
        multiplications, and one addition fewer. A sequence of length 0 needs neither.

        >>> from padless import waste
        >>> waste([9, 8, 6, 4, 3, 2]).product(1)
        Product(multiplications=Count(needed=32, padded=54), additions=Count(needed=26, padded=48))
        """
        width = whole("width", width, 1)
        return Product(
            multiplications=Count(self.rows * width, self.cells * width),
            additions=Count(self.rows * width - self.sums.needed, self.cells * width - self.sums.padded),
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

        A multiply-add counts as 2. A row costs 2 * G * (I + H) per layer and direction, with G gate rows (H, 3 H or
        4 H); training costs three times as much, since backward has two products for each one in forward. Element-wise
        operations are not counted.

        Args:
            cell: `"rnn"`, `"lstm"` or `"gru"`.
            input_size, hidden_size, num_layers, bidirectional: as in `torch.nn.LSTM`.
            training: whether to include backward.

        >>> from padless import waste
        >>> waste([3, 1]).flops("lstm", 10, 20)
        Count(needed=19200, padded=28800)
        """
        gates = _GATES[named("cell", str(cell).lower(), tuple(_GATES))]
        width, hidden_size = whole("input_size", input_size, 1), whole("hidden_size", hidden_size, 1)
        later_layers = whole("num_layers", num_layers, 1) - 1
        directions = 2 if flag("bidirectional", bidirectional) else 1
        # Widths of inputs and states of all layers.
        widths = width + hidden_size + later_layers * (directions + 1) * hidden_size
        a_row = directions * 2 * gates * hidden_size * widths
        if flag("training", training):
            a_row *= 3
        return Count(self.rows * a_row, self.cells * a_row)

"""Any cell stacked over layers and directions, and cells with layer normalisation."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.utils._pytree import tree_leaves, tree_map

from ..ops._kinds import as_packed, of_kind, with_rows
from ..options import whole
from ..packed import Packed
from ..recurrent.scanning import scan

__all__ = ["LayerNormGRU", "LayerNormGRUCell", "LayerNormLSTM", "LayerNormLSTMCell", "Recurrent"]


class Recurrent(torch.nn.Module):
    """A cell run over time by `padless.scan`, stacked over layers and directions like torch's layers.

    Args:
        cell: `cell(input_size, hidden_size) -> module`, whose output is `hidden_size` wide: `torch.nn.LSTMCell`,
            `GRUCell`, `RNNCell`, or a class with `forward(rows, state) -> (output, state)`. Initial states come from
            `module.initial_state(zeros)` if it exists, where `zeros (B, I)` give the number of sequences, the dtype and
            the device, and are otherwise zeros `(B, hidden_size)`.
        input_size, hidden_size, num_layers, bidirectional, dropout: as in `torch.nn.LSTM`.

    >>> rnn = Recurrent(torch.nn.GRUCell, 3, 4, num_layers=2, bidirectional=True)
    >>> output, state = rnn(Packed(torch.randn(4, 3), [3, 1]))
    >>> output.data.shape, state.shape
    (torch.Size([4, 8]), torch.Size([4, 2, 4]))
    """

    def __init__(
        self,
        cell: Any,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bidirectional: bool = False,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        name = type(self).__name__
        input_size = whole(f"{name}: input_size", input_size, 0)
        hidden_size = whole(f"{name}: hidden_size", hidden_size, 1)
        num_layers = whole(f"{name}: num_layers", num_layers, 1)
        if not 0 <= dropout <= 1:
            raise ValueError(f"{name}: dropout must be from 0 to 1, got {dropout}")
        self.input_size, self.hidden_size, self.num_layers = input_size, hidden_size, num_layers
        self.bidirectional, self.dropout = bidirectional, dropout
        directions = 2 if bidirectional else 1
        self.cells = torch.nn.ModuleList(
            cell(input_size if layer == 0 else directions * hidden_size, hidden_size)
            for layer in range(num_layers)
            for _ in range(directions)
        )

    def forward(self, packed: Any, hx: Any = None) -> tuple[Any, Any]:
        """Output `(N, D*H)` of the last layer, and the final states.

        Args:
            packed: `Packed` or `PackedSequence`, data `(N, I)`.
            hx: initial states, a pytree like the cell's with one more leading dimension, `(L*D, B, *)`, in the
                caller's order; those of the cell if None. As in torch, an LSTM's `(h, c)` may also be a list.

        Returns:
            The output, of the kind and layout of `packed`, and the final states, like `hx`.

        Raises:
            TypeError: an unsupported kind of input.
            ValueError: data of the wrong width, or states of the wrong form or size.
        """
        name = type(self).__name__
        batch = as_packed(packed, name)
        if batch.data.dim() != 2 or batch.data.shape[1] != self.input_size:
            raise ValueError(f"{name} takes data (N, {self.input_size}), got {tuple(batch.data.shape)}")
        if hx is not None:
            self._check_states(hx, batch)
            if isinstance(hx, list) and _state_count(self.cells[0]) == 2:
                hx = tuple(hx)
        directions = 2 if self.bidirectional else 1
        finals = []
        for layer in range(self.num_layers):
            outputs = []
            for direction in range(directions):
                place = layer * directions + direction
                cell = self.cells[place]
                if hx is None:
                    state = self._initial_state(cell, batch)
                else:
                    state = tree_map(lambda leaf, place=place: leaf[place], hx)
                output, final = scan(cell, batch, state, reverse=direction == 1)
                outputs.append(output.data)
                finals.append(final)
            rows = outputs[0] if directions == 1 else torch.cat(outputs, 1)
            if layer < self.num_layers - 1:
                rows = functional.dropout(rows, self.dropout, self.training)
            batch = with_rows(batch, rows)
        return of_kind(batch, packed), tree_map(lambda *leaves: torch.stack(leaves), finals[0], *finals[1:])

    def _check_states(self, hx: Any, batch: Packed) -> None:
        """Raise ValueError unless there is a state for every layer, direction and sequence."""
        count, states = _state_count(self.cells[0]), tree_leaves(hx)
        shape = [len(self.cells), len(batch), *([] if count is None else [self.hidden_size])]
        is_right = all(isinstance(s, Tensor) and list(s.shape[: len(shape)]) == shape for s in states)
        if not is_right or count not in (None, len(states)):
            expected = "(L*D, B, *), beginning with" if count is None else f"(L*D, B, H), {count} of"
            got = [list(s.shape) if isinstance(s, Tensor) else type(s).__name__ for s in states]
            raise ValueError(
                f"{type(self).__name__}: initial states must be tensors {expected} {shape}, got {got}"
            )

    def _initial_state(self, cell: Any, batch: Packed) -> Any:
        rows = batch.data.new_zeros(len(batch), batch.data.shape[1])
        if hasattr(cell, "initial_state"):
            return cell.initial_state(rows)
        h = rows.new_zeros(len(batch), self.hidden_size)
        return (h, h) if isinstance(cell, torch.nn.LSTMCell) else h


def _state_count(cell: Any) -> int | None:
    """The number of tensors `(B, H)` that are a cell's state; None if only the cell knows."""
    if isinstance(cell, (torch.nn.LSTMCell, LayerNormLSTMCell)):
        return 2
    return 1 if isinstance(cell, (torch.nn.RNNCellBase, LayerNormGRUCell)) else None


class _LayerNormCell(torch.nn.Module):
    def __init__(self, input_size: int, hidden_size: int, gates: int) -> None:
        super().__init__()
        name = type(self).__name__
        input_size = whole(f"{name}: input_size", input_size, 0)
        self.hidden_size = hidden_size = whole(f"{name}: hidden_size", hidden_size, 1)
        self.weight_ih = torch.nn.Parameter(torch.empty(gates * hidden_size, input_size))
        self.weight_hh = torch.nn.Parameter(torch.empty(gates * hidden_size, hidden_size))
        self.norm_ih = torch.nn.LayerNorm(gates * hidden_size)
        self.norm_hh = torch.nn.LayerNorm(gates * hidden_size)
        bound = hidden_size**-0.5
        for weight in (self.weight_ih, self.weight_hh):
            torch.nn.init.uniform_(weight, -bound, bound)

    def _products(self, rows: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        return (
            self.norm_ih(functional.linear(rows, self.weight_ih)),
            self.norm_hh(functional.linear(h, self.weight_hh)),
        )


class LayerNormLSTMCell(_LayerNormCell):
    """An LSTM cell that normalises its input product, its hidden product, and the cell state used for h.

    Source: Ba, Kiros and Hinton, "Layer Normalization", 2016, equations 20 to 22. Gates in torch's order: i, f, g, o.

    >>> h, (_, c) = LayerNormLSTMCell(3, 4)(torch.randn(2, 3), (torch.zeros(2, 4), torch.zeros(2, 4)))
    >>> h.shape, c.shape
    (torch.Size([2, 4]), torch.Size([2, 4]))
    """

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__(input_size, hidden_size, 4)
        self.norm_c = torch.nn.LayerNorm(hidden_size)

    def initial_state(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Zeros `(B, H)` for h and c."""
        zeros = rows.new_zeros(len(rows), self.hidden_size)
        return zeros, zeros

    def forward(self, rows: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Output and state of n rows `(n, I)` and states `(n, H)`."""
        h, c = state
        x_product, h_product = self._products(rows, h)
        i, f, g, o = (x_product + h_product).chunk(4, 1)
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()
        h = o.sigmoid() * self.norm_c(c).tanh()
        return h, (h, c)


class LayerNormGRUCell(_LayerNormCell):
    """A GRU cell that normalises its input product and its hidden product.

    Source: Ba, Kiros and Hinton, "Layer Normalization", 2016. Gates in torch's order: r, z, n; r acts on the
    normalised hidden product.

    >>> h, _ = LayerNormGRUCell(3, 4)(torch.randn(2, 3), torch.zeros(2, 4))
    >>> h.shape
    torch.Size([2, 4])
    """

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__(input_size, hidden_size, 3)

    def forward(self, rows: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """Output and state, the same tensor, of n rows `(n, I)` and states `(n, H)`."""
        x_product, h_product = self._products(rows, state)
        (x_r, x_z, x_n), (h_r, h_z, h_n) = x_product.chunk(3, 1), h_product.chunk(3, 1)
        z, n = (x_z + h_z).sigmoid(), (x_n + (x_r + h_r).sigmoid() * h_n).tanh()
        h = n + z * (state - n)
        return h, h


class _LayerNormLayers(Recurrent):
    """`Recurrent` over the cell type of a subclass."""

    _cell_type: type[_LayerNormCell]

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bidirectional: bool = False,
        dropout: float = 0.0,
    ) -> None:
        super().__init__(self._cell_type, input_size, hidden_size, num_layers, bidirectional, dropout)


class LayerNormLSTM(_LayerNormLayers):
    """`Recurrent` over `LayerNormLSTMCell`; its other arguments are those of `Recurrent`.

    >>> output, (h, c) = LayerNormLSTM(3, 4)(Packed(torch.randn(4, 3), [3, 1]))
    >>> output.data.shape, c.shape
    (torch.Size([4, 4]), torch.Size([1, 2, 4]))
    """

    _cell_type = LayerNormLSTMCell


class LayerNormGRU(_LayerNormLayers):
    """`Recurrent` over `LayerNormGRUCell`; its other arguments are those of `Recurrent`.

    >>> output, h = LayerNormGRU(3, 4, bidirectional=True)(Packed(torch.randn(4, 3), [3, 1]))
    >>> output.data.shape, h.shape
    (torch.Size([4, 8]), torch.Size([2, 2, 4]))
    """

    _cell_type = LayerNormGRUCell

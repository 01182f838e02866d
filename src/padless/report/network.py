"""The FLOPs of a recurrent network."""

from __future__ import annotations

from dataclasses import dataclass

from .counts import Count, Counted

__all__ = ["Network"]


@dataclass(frozen=True)
class Network:
    """Options as in `torch.nn.LSTM`, and whether backward is included.

    >>> print(Network("lstm", 64, 128, num_layers=2, bidirectional=True, training=True))
    LSTM 64 -> 128, 2 layers, bidirectional, training
    """

    cell: str
    input_size: int
    hidden_size: int
    num_layers: int = 1
    bidirectional: bool = False
    training: bool = False

    def flops(self, counted: Counted) -> Count:
        """FLOPs of the matrix products over the rows and over the cells of `counted`."""
        return counted.flops(
            self.cell,
            self.input_size,
            self.hidden_size,
            num_layers=self.num_layers,
            bidirectional=self.bidirectional,
            training=self.training,
        )

    def __str__(self) -> str:
        parts = [f"{self.cell.upper()} {self.input_size:,} -> {self.hidden_size:,}"]
        if self.num_layers > 1:
            parts.append(f"{self.num_layers} layers")
        if self.bidirectional:
            parts.append("bidirectional")
        parts.append("training" if self.training else "inference")
        return ", ".join(parts)

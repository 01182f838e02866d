"""The shapes that the weights of a recurrent module must have."""

from __future__ import annotations

from functools import lru_cache

from ..backends.contract import GATES

__all__ = ["weight_shapes"]


@lru_cache(maxsize=256)
def weight_shapes(
    mode: str,
    input_size: int,
    hidden_size: int,
    proj_size: int,
    num_layers: int,
    bias: bool,
    bidirectional: bool,
) -> tuple[tuple[int, ...], ...]:
    """The shapes of the flat weights as torch's constructor creates them."""
    gates = GATES[mode] * hidden_size
    directions, width = 2 if bidirectional else 1, proj_size or hidden_size
    shapes: list[tuple[int, ...]] = []
    for layer in range(num_layers):
        layer_input = input_size if layer == 0 else width * directions
        one: list[tuple[int, ...]] = [(gates, layer_input), (gates, width)]
        one += [(gates,), (gates,)] if bias else []
        one += [(proj_size, hidden_size)] if proj_size else []
        shapes += one * directions
    return tuple(shapes)

"""Hypothesis strategies of ragged batches and of layer options."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

__all__ = ["layer_options", "lengths"]


def lengths(*, min_length: int = 0, min_batch: int = 0, giant: int = 30) -> st.SearchStrategy[list[int]]:
    """Lists of lengths that break things: any, all equal, ones, one giant among short ones, none at all."""
    short = st.integers(min_length, 6)
    batch = st.integers(min_batch, 6)
    mixed = st.lists(short, min_size=min_batch, max_size=6)
    equal = st.builds(lambda length, count: [length] * count, short, batch)
    one_giant = st.builds(
        lambda before, after: [*before, giant, *after],
        st.lists(short, max_size=3),
        st.lists(short, max_size=3),
    )
    return st.one_of(mixed, equal, one_giant)


@st.composite
def layer_options(draw: st.DrawFn) -> dict[str, Any]:
    """Keyword arguments of `layer_kit.Problem`: the cell, the widths and every constructor option."""
    cell = draw(st.sampled_from(["RNN", "LSTM", "GRU"]))
    hidden_size = draw(st.integers(1, 7))
    options: dict[str, Any] = {
        "num_layers": draw(st.integers(1, 3)),
        "bidirectional": draw(st.booleans()),
        "bias": draw(st.booleans()),
    }
    if cell == "RNN":
        options["nonlinearity"] = draw(st.sampled_from(["tanh", "relu"]))
    if cell == "LSTM" and hidden_size > 1:
        options["proj_size"] = draw(st.integers(0, hidden_size - 1))
    return {
        "cell": cell,
        "input_size": draw(st.integers(1, 7)),
        "hidden_size": hidden_size,
        "with_state": draw(st.booleans()),
        "options": options,
    }

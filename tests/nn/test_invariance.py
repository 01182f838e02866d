"""In inference a sequence's bits are its own: company, place, layout, threads and block shapes do not touch them.

The native kernels promise it (they sum over K in one order for every block shape); nobody else does.
"""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import padless
from padless import backends
from padless.nn import GRU, LSTM, RNN

pytestmark = pytest.mark.skipif("native" not in backends.available(), reason="no native kernels here")

CELLS = {
    "lstm": LSTM,
    "lstm_proj": lambda width, hidden, **k: LSTM(width, hidden + 1, proj_size=(hidden + 1) // 2, **k),
    "gru": GRU,
    "rnn_tanh": RNN,
    "rnn_relu": lambda *a, **k: RNN(*a, nonlinearity="relu", **k),
}
DTYPES = (torch.float32, torch.float64)


def make(cell: str, dtype: torch.dtype, width: int, hidden: int) -> torch.nn.Module:
    torch.manual_seed(1)
    return CELLS[cell](width, hidden, num_layers=2, bidirectional=True, dtype=dtype).eval()


def run(layer: torch.nn.Module, *arguments: object, **options: object) -> tuple[object, tuple[Tensor, ...]]:
    with torch.no_grad(), backends.use("native"):
        output, states = layer(*arguments, **options)
    return output, states if isinstance(states, tuple) else (states,)


def alone(layer: torch.nn.Module, sequence: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
    output, states = run(layer, padless.pack([sequence]))
    return output.data, tuple(s[:, 0] for s in states)


def assert_each_is_as_alone(
    layer: torch.nn.Module, sequences: list[Tensor], outputs: list[Tensor], states: tuple[Tensor, ...]
) -> None:
    for i, sequence in enumerate(sequences):
        output, own_states = alone(layer, sequence)
        assert torch.equal(outputs[i], output), f"output of sequence {i} of {len(sequences)}"
        for state, own in zip(states, own_states, strict=True):
            assert torch.equal(state[:, i], own), f"state of sequence {i} of {len(sequences)}"


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("cell", CELLS)
@settings(max_examples=8)
@given(
    lengths=st.lists(st.integers(0, 12), min_size=1, max_size=40),
    sizes=st.tuples(st.integers(1, 40), st.integers(1, 40)),
)
def test_alone_is_bit_for_bit_as_in_company(
    cell: str, dtype: torch.dtype, lengths: list[int], sizes: tuple[int, int]
) -> None:
    layer = make(cell, dtype, *sizes)
    sequences = [torch.randn(n, sizes[0], dtype=dtype) for n in lengths]
    output, states = run(layer, padless.pack(sequences))
    assert_each_is_as_alone(layer, sequences, output.unpack(), states)


@pytest.mark.parametrize("cell", CELLS)
def test_every_layout_gives_the_same_bits(cell: str) -> None:
    layer = make(cell, torch.float32, 24, 33)
    lengths = [7, 1, 0, 19, 19, 4]
    packed = padless.pack([torch.randn(n, 24) for n in lengths])
    expected, states = run(layer, packed)
    sequence, states_of_sequence = run(layer, packed.to_packed_sequence())
    grid, states_of_grid = run(layer, packed.pad(batch_first=False), lengths=lengths)
    nested, states_of_nested = run(layer, packed.to_nested())
    assert torch.equal(padless.Packed.from_packed_sequence(sequence).data, expected.data)
    assert torch.equal(grid, expected.pad(batch_first=False))
    assert torch.equal(nested.values(), expected.data)
    for others in (states_of_sequence, states_of_grid, states_of_nested):
        assert all(torch.equal(a, b) for a, b in zip(states, others, strict=True))


@pytest.mark.parametrize("threads", [2, 3, 7])
@pytest.mark.parametrize("cell", CELLS)
def test_the_number_of_threads_does_not_touch_a_bit(cell: str, threads: int) -> None:
    layer = make(cell, torch.float32, 48, 64)
    packed = padless.pack([torch.randn(n, 48) for n in (60, 3, 41, 41, 8, 25, 1)])
    torch.set_num_threads(1)
    expected, states = run(layer, packed)
    try:
        torch.set_num_threads(threads)
        output, states_then = run(layer, packed)
    finally:
        torch.set_num_threads(1)
    assert torch.equal(output.data, expected.data)
    assert all(torch.equal(a, b) for a, b in zip(states, states_then, strict=True))


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("cell", CELLS)
def test_training_steps_repeat_bit_for_bit(cell: str, threads: int) -> None:
    layer = make(cell, torch.float32, 16, 48).train()
    packed = padless.pack([torch.randn(n, 16) for n in (30, 12, 12, 5, 1)])

    def gradients() -> list[Tensor]:
        layer.zero_grad()
        with backends.use("native"):
            output, _ = layer(packed)
            output.data.square().sum().backward()
        return [p.grad.clone() for p in layer.parameters()]

    try:
        torch.set_num_threads(threads)
        first, second = gradients(), gradients()
    finally:
        torch.set_num_threads(1)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))

"""What is timed: shapes with their source, lengths, and the contestants on one batch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence, pack_sequence, pad_packed_sequence

from .. import backends, nn

__all__ = ["CELLS", "SHAPES", "Case", "Shape", "make_case"]


class Shape(NamedTuple):
    """A batch: B sequences of at most T steps, input and hidden width H."""

    batch: int
    steps: int
    width: int


# From small text taggers to speech encoders and a served single sequence; the same shapes that the
# kernels' targets are stated for (docs/DESIGN in the issue "Native CPU kernels").
SHAPES = (
    Shape(64, 100, 128),
    Shape(64, 200, 256),
    Shape(32, 200, 512),
    Shape(256, 50, 64),
    Shape(8, 100, 256),
    Shape(1, 200, 256),
)
CELLS = ("LSTM", "GRU", "RNN")
_GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}


class Case(NamedTuple):
    """One batch and everyone who computes it."""

    cell: str
    shape: Shape
    rows: int
    train: bool
    flops: int  # useful ones: 2 N G (I + H) forward, three times that for training
    # name -> one step; gives the outputs at real rows, the final states and, in training, every gradient
    contestants: dict[str, Callable[[], tuple[Tensor, ...]]]

    @property
    def fill(self) -> float:
        return self.rows / (self.shape.batch * self.shape.steps)


def draw_lengths(shape: Shape, seed: int = 0) -> Tensor:
    """`(B,)` lengths, most of them short as in real corpora; the first is T."""
    generator = torch.Generator().manual_seed(seed)
    lengths = (torch.rand(shape.batch, generator=generator) ** 1.5 * (shape.steps - 1)).long() + 1
    lengths[0] = shape.steps
    return lengths


def make_case(cell: str, shape: Shape, *, train: bool, seed: int = 0) -> Case:
    """The same weights and rows for every contestant: each padless backend, torch packed, torch padded."""
    torch.manual_seed(seed)
    lengths = draw_lengths(shape, seed)
    packed = pack_sequence([torch.randn(int(n), shape.width) for n in lengths], enforce_sorted=False)
    theirs = getattr(torch.nn, cell)(shape.width, shape.width).train(train)
    ours = getattr(nn, cell)(shape.width, shape.width).train(train)
    ours.load_state_dict(theirs.state_dict())
    steps = {
        f"padless {name}": _step(ours, packed, train, name) for name in backends.available() if name != "torch"
    }
    steps["torch packed"] = _step(theirs, packed, train, None)
    steps["torch padded"] = _padded_step(theirs, packed, train)
    rows, gates = int(lengths.sum()), _GATES[cell] * shape.width
    flops = 2 * rows * gates * 2 * shape.width * (3 if train else 1)
    return Case(cell, shape, rows, train, flops, steps)


def _step(
    layer: torch.nn.Module, packed: PackedSequence, train: bool, backend: str | None
) -> Callable[[], tuple[Tensor, ...]]:
    data = packed.data.clone().requires_grad_(train)
    given = packed._replace(data=data)

    def forward() -> tuple[Tensor, ...]:
        output, states = layer(given)
        return output.data, *_as_tuple(states)

    def step() -> tuple[Tensor, ...]:
        if backend is None:
            return _run(layer, data, forward, train)
        with backends.use(backend):
            return _run(layer, data, forward, train)

    return step


def _padded_step(
    layer: torch.nn.Module, packed: PackedSequence, train: bool
) -> Callable[[], tuple[Tensor, ...]]:
    """The padded grid, longest first; the loss reads real cells only, as a masked loss does."""
    in_slots = packed._replace(sorted_indices=None, unsorted_indices=None)
    grid, lengths = pad_packed_sequence(in_slots)
    data = grid.clone().requires_grad_(train)
    steps = torch.arange(grid.shape[0])
    mask = (steps[:, None] < lengths).unsqueeze(-1)

    def forward() -> tuple[Tensor, ...]:
        output, _ = layer(data)
        return (output * mask,)

    return lambda: _run(layer, data, forward, train)


def _run(
    layer: torch.nn.Module, data: Tensor, forward: Callable[[], tuple[Tensor, ...]], train: bool
) -> tuple[Tensor, ...]:
    if not train:
        with torch.no_grad():
            return forward()
    layer.zero_grad()
    data.grad = None
    outputs = forward()
    outputs[0].sum().backward()
    return (*(o.detach() for o in outputs), *(p.grad for p in (data, *layer.parameters())))


def _as_tuple(states: Any) -> tuple[Tensor, ...]:
    return states if isinstance(states, tuple) else (states,)

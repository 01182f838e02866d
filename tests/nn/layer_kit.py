"""What the layer tests share: problems, the kinds of input, answers with every gradient, the tolerance.

An *answer* is a flat dict, "output[0]", "h_n", "c_n", "d input[0]", "d h0", "d weight_ih_l0", ... to
tensors, whoever gave it: a layer for any kind of input, or the oracle. So one comparison serves all.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

import padless

from ..oracle import run_layers

__all__ = [
    "CELLS",
    "KINDS",
    "Problem",
    "answer",
    "assert_same",
    "by_hand",
    "oracle_answer",
    "output_rows",
    "tolerance",
    "twins",
]

Answer = dict[str, Tensor]

# Every cell, with the options that make a cell of its own.
CELLS: dict[str, tuple[str, dict[str, Any]]] = {
    "rnn_tanh": ("RNN", {}),
    "rnn_relu": ("RNN", {"nonlinearity": "relu"}),
    "lstm": ("LSTM", {}),
    "lstm_proj": ("LSTM", {"proj_size": 3}),
    "gru": ("GRU", {}),
}


def tolerance(dtype: torch.dtype, *, width: int, steps: int, scale: float) -> float:
    """Largest difference allowed between two right answers: `64 * eps * sqrt(K + T) * scale`.

    Each element is a sum of K = I + H products carried on over T steps; rounding errors of either sign
    add up as a random walk does, with the square root of their number, and 64 covers the constant
    factors (activations, gates, backward through both). `scale` is the largest magnitude in the tensor,
    and at least 1, since what is summed is about 1 even where the sum cancels.
    """
    return 64 * torch.finfo(dtype).eps * math.sqrt(width + steps) * scale


def by_hand(sequences: Sequence[Tensor], *, fields: int = 4) -> PackedSequence:
    """A PackedSequence laid out row by row, as a client would; a length of 0 is in the indices only.

    fields=2 gives data and batch_sizes alone: the sequences then must come longest first.
    """
    lengths = [len(s) for s in sequences]
    order = sorted(range(len(lengths)), key=lambda b: -lengths[b])
    steps = range(max(lengths, default=0))
    rows = [sequences[b][t] for t in steps for b in order if lengths[b] > t]
    data = torch.stack(rows) if rows else torch.cat([s[:0] for s in sequences])
    batch_sizes = torch.tensor([sum(n > t for n in lengths) for t in steps], dtype=torch.int64)
    if fields == 2:
        if order != list(range(len(lengths))):
            raise ValueError(f"two fields need sequences longest first, got lengths {lengths}")
        return PackedSequence(data, batch_sizes)
    sorted_indices = torch.tensor(order, dtype=torch.int64)
    return PackedSequence(data, batch_sizes, sorted_indices, torch.argsort(sorted_indices))


def nested(sequences: Sequence[Tensor]) -> Tensor:
    offsets = torch.tensor([0, *(len(s) for s in sequences)]).cumsum(0)
    return torch.nested.nested_tensor_from_jagged(torch.cat(list(sequences)), offsets)


def padded(sequences: Sequence[Tensor], *, batch_first: bool, value: float = 0.0) -> Tensor:
    steps = max(len(s) for s in sequences)
    filled = [torch.cat([s, s.new_full((steps - len(s), s.shape[1]), value)]) for s in sequences]
    return torch.stack(filled, 0 if batch_first else 1)


def _run_padded(layer: Any, sequences: Sequence[Tensor], hx: Any) -> tuple[Any, Any]:
    lengths = [len(s) for s in sequences]
    # NaN in the padding: any use of it, forward or backward, spoils an answer.
    garbage = padded(sequences, batch_first=layer.batch_first, value=math.nan)
    return layer(garbage, hx, lengths=lengths)


# Each takes (layer, sequences, hx) and calls the layer with this kind of input.
KINDS: dict[str, Callable[..., tuple[Any, Any]]] = {
    "packed_sequence": lambda layer, s, hx: layer(by_hand(s), hx),
    "packed": lambda layer, s, hx: layer(padless.pack(list(s)), hx),
    "nested": lambda layer, s, hx: layer(nested(s), hx),
    "lengths": _run_padded,
}


def output_rows(output: Any, lengths: Sequence[int], *, batch_first: bool = False) -> list[Tensor]:
    """The output of a layer, of whatever kind, as one tensor `(length, D*H)` a sequence."""
    if isinstance(output, PackedSequence):
        rows: list[list[Tensor]] = [[] for _ in lengths]
        order = output.sorted_indices
        order = range(len(lengths)) if order is None else order.tolist()
        position = 0
        for size in output.batch_sizes.tolist():
            for slot in range(size):
                rows[order[slot]].append(output.data[position + slot])
            position += size
        empty = output.data[:0]
        return [torch.stack(r) if r else empty for r in rows]
    if isinstance(output, padless.Packed):
        return list(output.data.split(list(lengths)))
    if output.is_nested:
        return list(output.values().split(list(lengths)))
    by_sequence = output if batch_first else output.transpose(0, 1)
    return [by_sequence[b, :n] for b, n in enumerate(lengths)]


@dataclass
class Problem:
    """Sequences, states and layer options, drawn from a seed; `answer` and `oracle_answer` solve it."""

    cell: str
    lengths: Sequence[int]
    options: Mapping[str, Any] = field(default_factory=dict)
    input_size: int = 5
    hidden_size: int = 4
    with_state: bool = True
    dtype: torch.dtype = torch.float64
    seed: int = 0

    def __post_init__(self) -> None:
        generator = torch.Generator().manual_seed(self.seed)

        def draw(*shape: int) -> Tensor:
            wide = torch.complex128 if self.dtype.is_complex else torch.float64
            drawn = torch.randn(*shape, dtype=wide, generator=generator)
            # Complex tanh and sigmoid have poles; small numbers stay away from them.
            return (drawn * 0.3 if self.dtype.is_complex else drawn).to(self.dtype)

        self.sequences = [draw(n, self.input_size) for n in self.lengths]
        count = self.options.get("num_layers", 1) * (1 + self.options.get("bidirectional", False))
        batch = len(self.lengths)
        width = self.options.get("proj_size", 0) or self.hidden_size
        states = (draw(count, batch, width), draw(count, batch, self.hidden_size))
        self.state = (states if self.cell == "LSTM" else states[:1]) if self.with_state else None

    def twins(self) -> tuple[Any, Any]:
        return twins(self.cell, self.input_size, self.hidden_size, dtype=self.dtype, **self.options)


def twins(cell: str, *args: Any, seed: int = 0, **options: Any) -> tuple[Any, Any]:
    """The padless layer and torch's, both freshly made from the same seed (so of equal weights)."""
    layers = []
    for home in (padless.nn, nn):
        torch.manual_seed(seed)
        layers.append(getattr(home, cell)(*args, **options))
    return layers[0], layers[1]


def answer(layer: Any, problem: Problem, call: Callable[..., tuple[Any, Any]]) -> Answer:
    """What `layer` makes of the problem through `call`, and the gradients of a random projection."""
    inputs = [s.clone().requires_grad_() for s in problem.sequences]
    state = None
    if problem.state is not None:
        state = tuple(s.clone().requires_grad_() for s in problem.state)
    hx = state if state is None or layer.mode == "LSTM" else state[0]
    output, last = call(layer, inputs, hx)
    rows = output_rows(output, problem.lengths, batch_first=layer.batch_first)
    weights = {k: p for k, p in layer.named_parameters() if p.requires_grad}
    return _collect(problem, inputs, state, weights, rows, last if layer.mode == "LSTM" else (last,))


def oracle_answer(layer: nn.Module, problem: Problem) -> Answer:
    """What the oracle makes of the problem with `layer`'s weights, all in double precision."""
    wide = torch.complex128 if problem.dtype.is_complex else torch.float64
    inputs = [s.to(wide, copy=True).requires_grad_() for s in problem.sequences]
    state = None
    if problem.state is not None:
        state = tuple(s.to(wide, copy=True).requires_grad_() for s in problem.state)
    weights = {k: p.detach().to(wide, copy=True).requires_grad_() for k, p in layer.named_parameters()}
    known = ("num_layers", "bidirectional", "nonlinearity")
    options = {k: v for k, v in problem.options.items() if k in known}
    outputs, last = run_layers(problem.cell, weights, inputs, state, **options)
    return _collect(problem, inputs, state, weights, outputs, last)


def _collect(
    problem: Problem,
    inputs: Sequence[Tensor],
    state: tuple[Tensor, ...] | None,
    weights: Mapping[str, Tensor],
    rows: Sequence[Tensor],
    last: tuple[Tensor, ...],
) -> Answer:
    result = {f"output[{b}]": r for b, r in enumerate(rows)}
    result |= dict(zip(("h_n", "c_n"), last, strict=False))
    leaves = {f"d input[{b}]": x for b, x in enumerate(inputs)}
    leaves |= dict(zip(("d h0", "d c0"), state or (), strict=False))
    leaves |= {f"d {name}": p for name, p in weights.items()}
    generator = torch.Generator().manual_seed(problem.seed + 1)
    loss = torch.zeros((), dtype=torch.float64)
    for value in result.values():
        # The cotangent is drawn in the problem's own dtype, so that it is the same number for all.
        wide = torch.complex128 if problem.dtype.is_complex else torch.float64
        cotangent = torch.randn(value.shape, dtype=wide, generator=generator)
        cotangent = cotangent.to(problem.dtype).to(value.dtype)
        loss = loss + (value * cotangent).to(wide).sum().real
    grads = [torch.zeros_like(leaf) for leaf in leaves.values()]
    if loss.requires_grad:  # it does not where every length is 0 and no state is given
        grads = torch.autograd.grad(loss, list(leaves.values()), allow_unused=True, materialize_grads=True)
    result |= dict(zip(leaves, grads, strict=True))
    return {name: value.detach() for name, value in result.items()}


def assert_same(actual: Answer, expected: Answer, problem: Problem) -> None:
    """Every tensor of `actual` is that of `expected`, within the derived tolerance of its dtype."""
    assert actual.keys() == expected.keys()
    steps = max(problem.lengths, default=0)
    width = problem.input_size + problem.hidden_size
    for name, right in expected.items():
        value = actual[name]
        assert value.shape == right.shape, name
        assert value.dtype == problem.dtype, name
        if right.numel() == 0:
            continue
        wide = value.to(right.dtype) if right.dtype.itemsize > value.dtype.itemsize else value
        scale = max(1.0, float(right.abs().max()))
        allowed = tolerance(value.dtype, width=width, steps=steps, scale=scale)
        error = float((wide - right).abs().max())
        assert error <= allowed, f"{name}: off by {error:.3g}, allowed {allowed:.3g}"

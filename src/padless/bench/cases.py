"""The cases to time: shapes, and each implementation on the same batch and weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence, pack_sequence, pad_packed_sequence

from .. import backends, nn
from . import served
from .lengths import draw_lengths

__all__ = [
    "CELLS", "FLOAT32", "REFERENCE", "SHAPES", "Case", "Contestant", "Shape", "gradients", "make_case", "make_low_case",
    "packed_contestant",
    "padded_contestant",
]  # fmt: skip


class Shape(NamedTuple):
    """A batch: B sequences of at most T steps, input and hidden width H."""

    batch: int
    steps: int
    width: int


# From small text taggers to speech encoders and a single served sequence: the shapes of the kernels' performance
# targets (docs/decisions/kernels.md).
SHAPES = (
    Shape(64, 100, 128),
    Shape(64, 200, 256),
    Shape(32, 200, 512),
    Shape(256, 50, 64),
    Shape(8, 100, 256),
    Shape(1, 200, 256),
)
CELLS = ("LSTM", "GRU", "RNN")
FLOAT32 = "padless float32"  # the reference for results in a lower precision
REFERENCE = "torch packed"  # the reference for all other results
_GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}


class Contestant(NamedTuple):
    """One implementation of a case: what is timed, and how to read its results.

    step: one whole step, timed.
    results: maps what `step` returned to results by name, all of the reference's or some: `"output"` `(N, H)`
        with rows in packed order, `"h_n"`, `"c_n"` `(B, H)`, and in training `"grad ..."` of the input's rows and of
        every parameter. Not timed.
    """

    step: Callable[[], Any]
    results: Callable[[Any], dict[str, Tensor]]


@dataclass(frozen=True)
class Case:
    """One batch and its contestants."""

    cell: str
    shape: Shape
    lengths: str
    rows: int
    train: bool
    contestants: dict[str, Contestant]
    eps: float = torch.finfo(torch.float32).eps  # of the products of the least precise contestant

    @property
    def fill(self) -> float:
        """The fraction of real cells in the padded grid."""
        return self.rows / (self.shape.batch * self.shape.steps)

    @property
    def flops(self) -> int:
        """Useful FLOPs: 2 N G (I + H) forward, with G rows of gates; three times that for training."""
        return (
            2 * self.rows * _GATES[self.cell] * self.shape.width * 2 * self.shape.width * (1 + 2 * self.train)
        )


def make_case(cell: str, shape: Shape, *, train: bool, lengths: str = "short", seed: int = 0) -> Case:
    """One batch with the same weights and rows for every implementation available here.

    The implementations are padless with each of its backends, torch packed, torch padded, and for inference
    ONNX Runtime and OpenVINO, if installed, on the padded batch with `sequence_lens`.

    Args:
        cell: one of `CELLS`.
        shape: B, T and H.
        train: forward, backward and every gradient; otherwise only forward, without autograd.
        lengths: distribution of the lengths, a key of `lengths.LENGTHS`.
    """
    rows, packed, gradient = _draw(shape, lengths, seed)
    theirs = getattr(torch.nn, cell)(shape.width, shape.width).train(train)
    ours = getattr(nn, cell)(shape.width, shape.width).train(train)
    ours.load_state_dict(theirs.state_dict())
    contestants = {
        f"padless {name}": _on_backend(name, packed_contestant(ours, packed, gradient, train))
        for name in backends.available()
        if name != "torch"
    }
    contestants[REFERENCE] = packed_contestant(theirs, packed, gradient, train)
    contestants["torch padded"] = padded_contestant(theirs, packed, gradient, train)
    if not train:
        grid, grid_lengths = pad_packed_sequence(packed)
        for name, engine in served.engines().items():
            run = engine(cell, theirs, grid, grid_lengths, torch.get_num_threads())
            contestants[name] = Contestant(run, lambda found: _served_results(found, packed))
    return Case(cell, shape, lengths, rows, train, contestants)


def _draw(shape: Shape, lengths: str, seed: int) -> tuple[int, PackedSequence, Tensor]:
    """N, a batch of random rows, and a gradient of its output; changes the state of torch's generator."""
    torch.manual_seed(seed)
    drawn = draw_lengths(lengths, shape.batch, shape.steps, seed=seed)
    packed = pack_sequence([torch.randn(int(n), shape.width) for n in drawn], enforce_sorted=False)
    return int(drawn.sum()), packed, torch.randn(packed.data.shape)


def make_low_case(
    cell: str, shape: Shape, *, train: bool, lengths: str = "short", seed: int = 0, dtype: str, precision: str
) -> Case:
    """Padless's native kernels in a lower precision, compared with padless in float32 and torch in that precision.

    Without AMX, padless computes bfloat16 as float32 and ignores the setting. torch's padded LSTM is left out if
    oneDNN has no bfloat16 kernel for the machine.

    Args:
        cell, shape, train, lengths: as for `make_case`.
        dtype: `"bf16"`, of rows and weights, or `"float32"`.
        precision: torch's setting for float32 products while a contestant runs; padless in float32 uses `"highest"`.
    """
    low = torch.bfloat16 if dtype == "bf16" else torch.float32
    rows, packed, gradient = _draw(shape, lengths, seed)
    wide = getattr(nn, cell)(shape.width, shape.width).train(train)
    ours = getattr(nn, cell)(shape.width, shape.width, dtype=low).train(train)
    theirs = getattr(torch.nn, cell)(shape.width, shape.width, dtype=low).train(train)
    for layer in (ours, theirs):
        layer.load_state_dict(wide.state_dict())
    wide.load_state_dict(ours.state_dict())  # rounded
    narrow, narrow_gradient = packed._replace(data=packed.data.to(low)), gradient.to(low)
    exact = packed._replace(data=narrow.data.float())
    name = "bf16" if dtype == "bf16" else precision
    contestants = {
        f"padless {name}": _at_precision(precision, packed_contestant(ours, narrow, narrow_gradient, train)),
        FLOAT32: _at_precision("highest", packed_contestant(wide, exact, narrow_gradient.float(), train)),
    }
    for other, make in ((REFERENCE, packed_contestant), ("torch padded", padded_contestant)):
        contestant = _at_precision(precision, make(theirs, narrow, narrow_gradient, train))
        try:
            contestant.step()
        except RuntimeError as error:
            if "primitive" not in str(error):  # "could not create a primitive descriptor"
                raise
            continue
        contestants[other] = contestant
    eps = 2.0**-16 if dtype == "float32" and precision == "high" else torch.finfo(torch.bfloat16).eps
    return Case(cell, shape, lengths, rows, train, contestants, eps)


def _at_precision(precision: str, contestant: Contestant) -> Contestant:
    def step() -> Any:
        before = torch.get_float32_matmul_precision()
        torch.set_float32_matmul_precision(precision)
        try:
            return contestant.step()
        finally:
            torch.set_float32_matmul_precision(before)

    return contestant._replace(step=step)


def packed_contestant(
    layer: torch.nn.Module, packed: PackedSequence, gradient: Tensor, train: bool
) -> Contestant:
    """A layer on packed rows; in training the output's gradient is `gradient`, in packed order."""
    data = packed.data.clone().requires_grad_(train)
    given = packed._replace(data=data)

    def results(found: tuple[PackedSequence, Any]) -> dict[str, Tensor]:
        output, states = found
        states = states if isinstance(states, tuple) else (states,)
        named = {name: state[0].detach() for name, state in zip(("h_n", "c_n"), states, strict=False)}
        return {"output": output.data.detach(), **named, **gradients(layer, data.grad)}

    def infer() -> Any:
        with torch.no_grad():
            return layer(given)

    def step() -> Any:
        data.grad = None
        layer.zero_grad()
        output, states = layer(given)
        output.data.backward(gradient)
        return output, states

    return Contestant(step if train else infer, results)


def padded_contestant(
    layer: torch.nn.Module, packed: PackedSequence, gradient: Tensor, train: bool
) -> Contestant:
    """A layer on the padded grid of the same rows; the gradient is 0 at padding, as with a masked loss.

    Final states are not part of the results: on a grid they are the states after the padding.
    """
    grid, _ = pad_packed_sequence(packed)
    data = grid.clone().requires_grad_(train)
    gradient_grid, _ = pad_packed_sequence(packed._replace(data=gradient))

    def results(output: Tensor) -> dict[str, Tensor]:
        rows = None if data.grad is None else _real_rows(data.grad, packed)
        return {"output": _real_rows(output.detach(), packed), **gradients(layer, rows)}

    def infer() -> Tensor:
        with torch.no_grad():
            return layer(data)[0]

    def step() -> Tensor:
        data.grad = None
        layer.zero_grad()
        output, _ = layer(data)
        output.backward(gradient_grid)
        return output

    return Contestant(step if train else infer, results)


def _on_backend(name: str, contestant: Contestant) -> Contestant:
    def step() -> Any:
        with backends.use(name):
            return contestant.step()

    return contestant._replace(step=step)


def _served_results(found: dict[str, Tensor], packed: PackedSequence) -> dict[str, Tensor]:
    return {**found, "output": _real_rows(found["output"], packed)}


def _real_rows(grid: Tensor, packed: PackedSequence) -> Tensor:
    """`(N, *)`, in packed order: the real rows of a grid `(T, B, *)` in the caller's order."""
    mask = torch.arange(grid.shape[1]) < packed.batch_sizes[:, None]
    return grid[:, packed.sorted_indices][mask]


def gradients(layer: torch.nn.Module, input_rows: Tensor | None = None) -> dict[str, Tensor]:
    """Gradients of every parameter that has one, by name, and those of the input's rows if they are given.

    Copies, because two contestants share one layer and the next step overwrites the gradients.
    """
    named = {f"grad {name}": p.grad.clone() for name, p in layer.named_parameters() if p.grad is not None}
    return named if input_rows is None else {"grad input": input_rows.clone(), **named}

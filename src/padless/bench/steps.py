"""Calls of one or a few steps: padless and torch on the same kind of input, `padless bench --steps`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence, pack_sequence

from .. import nn
from ..packed import Packed
from .cases import Contestant, Shape
from .timing import check_contestants, time_by_turns

__all__ = ["KINDS", "STEP_SHAPES", "render_steps", "time_steps"]

STEP_SHAPES = (Shape(1, 1, 64), Shape(8, 1, 128), Shape(64, 1, 256), Shape(1, 1, 512), Shape(8, 5, 128))
KINDS = ("padded", "PackedSequence", "Packed")  # for `Packed`, torch gets a PackedSequence


def time_steps(
    cell: str,
    shape: Shape,
    *,
    train: bool,
    dtype: torch.dtype = torch.float32,
    repeats: int = 9,
    budget_seconds: float = 2.0,
) -> dict[str, Any]:
    """One entry of the report: for each of `KINDS` the seconds of padless and torch, and their ratio.

    All sequences have the same length and initial states are given, as when sequences are fed step by step. Results
    are checked for equality before anything is timed.

    Raises:
        DisagreementError: the results of padless and torch differ.
    """
    torch.manual_seed(0)
    theirs = getattr(torch.nn, cell)(shape.width, shape.width, dtype=dtype)
    ours = getattr(nn, cell)(shape.width, shape.width, dtype=dtype)
    ours.load_state_dict(theirs.state_dict())
    state = torch.randn(1, shape.batch, shape.width, dtype=dtype)
    hx = (state, state.clone()) if cell == "LSTM" else state
    x = torch.randn(shape.steps, shape.batch, shape.width, dtype=dtype)
    packed = pack_sequence(list(x.unbind(1)))
    inputs = {"padded": x, "PackedSequence": packed, "Packed": Packed.from_packed_sequence(packed)}
    entry: dict[str, Any] = {
        "cell": cell,
        "mode": "train" if train else "infer",
        "shape": list(shape),
        "kinds": {},
    }
    for kind in KINDS:
        contestants = {
            "padless": _contestant(ours, inputs[kind], hx, train),
            "torch": _contestant(theirs, packed if kind == "Packed" else inputs[kind], hx, train),
        }
        check_contestants(
            contestants, "torch", where=f"{cell} {tuple(shape)} {kind}", rows=shape.batch * shape.steps,
            width=shape.width, steps=shape.steps, eps=torch.finfo(dtype).eps,
        )  # fmt: skip
        steps = {name: each.step for name, each in contestants.items()}
        timed = time_by_turns(steps, repeats=repeats, budget_seconds=budget_seconds)
        seconds = {name: timing.minimum_seconds for name, timing in timed.items()}
        entry["kinds"][kind] = {**seconds, "ratio": seconds["padless"] / seconds["torch"]}
    return entry


def render_steps(entries: list[dict[str, Any]]) -> str:
    """A table of entries of one cell and mode: microseconds of padless and padless / torch, by kind of input."""
    first = entries[0]
    lines = [
        "",
        f"{first['cell']} {first['mode']}: microseconds of padless, and padless over torch (over 1: padless is slower)",
        f"{'B,T,H':>12}" + "".join(f"{kind:>22}" for kind in KINDS),
    ]
    for entry in entries:
        cells = (entry["kinds"][kind] for kind in KINDS)
        lines.append(
            f"{','.join(map(str, entry['shape'])):>12}"
            + "".join(f"{1e6 * cell['padless']:15.1f} {cell['ratio']:6.2f}" for cell in cells)
        )
    return "\n".join(lines)


def _contestant(layer: torch.nn.Module, x: Any, hx: Any, train: bool) -> Contestant:
    def infer() -> Any:
        with torch.no_grad():
            return layer(x, hx)

    def backward() -> Any:
        layer.zero_grad()
        result = layer(x, hx)
        _rows(result[0]).sum().backward()
        return result

    def results(result: Any) -> dict[str, Tensor]:
        output, final = result
        states = final if isinstance(final, tuple) else (final,)
        found = {"output": _in_time(output), **dict(zip(("h_n", "c_n"), states, strict=False))}
        grads = {f"grad {name}": p.grad.clone() for name, p in layer.named_parameters() if p.grad is not None}
        return {**{name: value.detach() for name, value in found.items()}, **grads}

    step: Callable[[], Any] = backward if train else infer
    return Contestant(step, results)


def _rows(output: Any) -> Tensor:
    return output if isinstance(output, Tensor) else output.data


def _in_time(output: Any) -> Tensor:
    """Rows `(T * B, H)` step after step, for every kind."""
    if isinstance(output, Packed):
        output = output.to_packed_sequence()
    rows = output.data if isinstance(output, PackedSequence) else output
    return rows.detach().reshape(-1, rows.size(-1))

"""Calls of one or a few steps: padless and torch on the same kind of input, `padless bench --steps`.

In a narrow dtype (bfloat16), padless in float32 takes part too.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence, pack_sequence

from .. import nn
from ..packed import Packed
from .cases import FLOAT32, Contestant, Shape, gradients
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

    Args:
        cell, shape, train: as for `cases.make_case`.
        dtype: of rows, states and weights. With bfloat16 or float16, each kind also has the seconds of padless in
            float32 on the same numbers (`FLOAT32`), which the results are compared with.
        repeats, budget_seconds: as for `timing.measure`, for each kind.

    Raises:
        DisagreementError: the results of padless and torch differ.
    """
    torch.manual_seed(0)
    theirs = getattr(torch.nn, cell)(shape.width, shape.width, dtype=dtype)
    ours = getattr(nn, cell)(shape.width, shape.width, dtype=dtype)
    ours.load_state_dict(theirs.state_dict())
    state = torch.randn(1, shape.batch, shape.width, dtype=dtype)
    x = torch.randn(shape.steps, shape.batch, shape.width, dtype=dtype)
    inputs, hx = _inputs(x), _states(cell, state)
    reference = "torch"
    if dtype.itemsize < 4:
        reference = FLOAT32
        wide = getattr(nn, cell)(shape.width, shape.width, dtype=torch.float32)
        wide.load_state_dict(ours.state_dict())
        wide_inputs, wide_hx = _inputs(x.float()), _states(cell, state.float())
    entry: dict[str, Any] = {
        "cell": cell,
        "mode": "train" if train else "infer",
        "shape": list(shape),
        "kinds": {},
    }
    for kind in KINDS:
        contestants = {
            "padless": _contestant(ours, inputs[kind], hx, train),
            "torch": _contestant(theirs, inputs["PackedSequence" if kind == "Packed" else kind], hx, train),
        }
        if reference == FLOAT32:
            contestants[FLOAT32] = _contestant(wide, wide_inputs[kind], wide_hx, train)
        check_contestants(
            contestants, reference, where=f"{cell} {tuple(shape)} {kind}", rows=shape.batch * shape.steps,
            width=shape.width, steps=shape.steps, eps=torch.finfo(dtype).eps,
        )  # fmt: skip
        steps = {name: each.step for name, each in contestants.items()}
        timed = time_by_turns(steps, repeats=repeats, budget_seconds=budget_seconds)
        seconds = {name: timing.minimum_seconds for name, timing in timed.items()}
        entry["kinds"][kind] = {**seconds, "ratio": seconds["padless"] / seconds["torch"]}
    return entry


def render_steps(entries: list[dict[str, Any]]) -> str:
    """A table of entries of one cell and mode: microseconds of padless and padless / torch, by kind of input.

    In a narrow dtype also padless / padless in float32.
    """
    first = entries[0]
    others = [name for name in first["kinds"][KINDS[0]] if name in ("torch", FLOAT32)]
    ratios = " and over ".join(others)
    title = f"{first['cell']} {first['mode']}: microseconds of padless, and padless over {ratios}"
    lines = [
        "",
        f"{title} (over 1: padless is slower)",
        f"{'B,T,H':>12}" + "".join(f"{kind:>{15 + 7 * len(others)}}" for kind in KINDS),
    ]
    for entry in entries:
        line = f"{','.join(map(str, entry['shape'])):>12}"
        for kind in KINDS:
            seconds = entry["kinds"][kind]
            line += f"{1e6 * seconds['padless']:15.1f}"
            line += "".join(f" {seconds['padless'] / seconds[name]:6.2f}" for name in others)
        lines.append(line)
    return "\n".join(lines)


def _inputs(x: Tensor) -> dict[str, Any]:
    """The rows `(T, B, *)` as each of `KINDS`."""
    packed = pack_sequence(list(x.unbind(1)))
    return {"padded": x, "PackedSequence": packed, "Packed": Packed.from_packed_sequence(packed)}


def _states(cell: str, state: Tensor) -> Any:
    return (state, state.clone()) if cell == "LSTM" else state


def _contestant(layer: torch.nn.Module, x: Any, hx: Any, train: bool) -> Contestant:
    def infer() -> Any:
        with torch.no_grad():
            return layer(x, hx)

    def train_step() -> Any:
        layer.zero_grad()
        result = layer(x, hx)
        _rows(result[0]).sum().backward()
        return result

    def results(result: Any) -> dict[str, Tensor]:
        output, final = result
        states = final if isinstance(final, tuple) else (final,)
        found = {"output": _in_time(output), **dict(zip(("h_n", "c_n"), states, strict=False))}
        return {**{name: value.detach() for name, value in found.items()}, **gradients(layer)}

    step: Callable[[], Any] = train_step if train else infer
    return Contestant(step, results)


def _rows(output: Any) -> Tensor:
    return output if isinstance(output, Tensor) else output.data


def _in_time(output: Any) -> Tensor:
    """Rows `(T * B, H)` step after step, for every kind."""
    if isinstance(output, Packed):
        output = output.to_packed_sequence()
    rows = output.data if isinstance(output, PackedSequence) else output
    return rows.detach().reshape(-1, rows.size(-1))

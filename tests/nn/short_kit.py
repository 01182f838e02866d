"""What the tests of calls of one or a few steps share: layers and states, and whether the short way was taken."""

from __future__ import annotations

import pytest
import torch

import padless
from padless.nn import _forward

NARROW = [torch.bfloat16, torch.float16]
each_cell = pytest.mark.parametrize("cell", ["LSTM", "GRU", "RNN"])


def layer_of(cell: str, *, dtype=torch.float32, **options):
    torch.manual_seed(1)
    return getattr(padless.nn, cell)(5, 7, dtype=dtype, **options)


def states_of(layer, batch: int, dtype=torch.float32):
    h = torch.randn(layer.num_layers * (2 if layer.bidirectional else 1), batch, 7, dtype=dtype)
    return (h, torch.randn_like(h)) if layer.mode == "LSTM" else h


def fed_step_by_step(layer, x):
    state, outputs = None, []
    for step in x.split(1):
        output, state = layer(step, state)
        outputs.append(output)
    return torch.cat(outputs), state


def flat(result):
    output, state = result
    rows = output if isinstance(output, torch.Tensor) else output.data
    return [rows, *(state if isinstance(state, tuple) else [state])]


def assert_same_bits(got, expected, at=None):
    for which, (a, b) in enumerate(zip(got, expected, strict=True)):
        assert a.dtype == b.dtype, (at, which, a.dtype, b.dtype)
        assert torch.equal(a, b), (at, which)


def counted(monkeypatch, way="short_forward"):
    """A list that says of every call from now on whether it took the short way, or another one of the forward."""
    taken, compute = [], getattr(_forward, way)

    def spy(*arguments):
        result = compute(*arguments)
        taken.append(result is not None)
        return result

    monkeypatch.setattr(_forward, way, spy)
    return taken


def without_short_way(monkeypatch):
    """Let the general path compute every call, also those of prepared layers."""
    for name in ("short_forward", "infer_plain"):
        monkeypatch.setattr(_forward, name, lambda *arguments: None)


@torch.no_grad()
def both_ways(layer, x, hx, monkeypatch):
    """Results of the short and of the general way."""
    short = layer(x, hx)
    with monkeypatch.context() as patch:
        without_short_way(patch)
        return short, layer(x, hx)

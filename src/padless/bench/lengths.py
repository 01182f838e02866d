"""Lengths of benchmark batches, drawn from a distribution or taken from real text; each names its source."""

from __future__ import annotations

import functools
from collections.abc import Callable

import torch
from torch import Generator, Tensor

from ..demo.data import read_functions, stdlib_files

__all__ = ["LENGTHS", "draw_lengths"]


def draw_lengths(kind: str, batch: int, steps: int, *, seed: int = 0) -> Tensor:
    """`(B,)` int64 lengths from 1 to T, of which the first is T; the same seed gives the same lengths.

    Args:
        kind: a key of `LENGTHS`.
        batch: B.
        steps: T; longer sequences are cut there, as in training.

    >>> draw_lengths("equal", 3, 5)
    tensor([5, 5, 5])
    """
    lengths = LENGTHS[kind](batch, steps, Generator().manual_seed(seed)).clamp(1, steps)
    lengths[0] = steps
    return lengths


def _short(batch: int, steps: int, generator: Generator) -> Tensor:
    """`rand**1.5 * (T - 1) + 1`: mostly short, 40 % of the grid is real; used for the performance targets."""
    return (torch.rand(batch, generator=generator) ** 1.5 * (steps - 1)).long() + 1


def _uniform(batch: int, steps: int, generator: Generator) -> Tensor:
    """Every length from 1 to T is equally likely: half of the grid is real."""
    return torch.randint(1, steps + 1, (batch,), generator=generator)


def _lognormal(batch: int, steps: int, generator: Generator) -> Tensor:
    """Log-normal with median T/4 and sigma 0.6, roughly like sentences and utterances."""
    return (torch.randn(batch, generator=generator) * 0.6).exp().mul(steps / 4).long()


def _equal(batch: int, steps: int, generator: Generator) -> Tensor:
    """All lengths are T: no padding, so the only difference is the engine's own overhead."""
    return torch.full((batch,), steps)


def _stdlib(batch: int, steps: int, generator: Generator) -> Tensor:
    """Tokens per function of Python's standard library, the data of `padless demo`: median 43."""
    counted = _stdlib_lengths()
    return counted[torch.randint(len(counted), (batch,), generator=generator)]


@functools.cache
def _stdlib_lengths() -> Tensor:
    return torch.tensor([len(function.words) for function in read_functions(*stdlib_files())])


LENGTHS: dict[str, Callable[[int, int, Generator], Tensor]] = {
    "short": _short,
    "stdlib": _stdlib,
    "lognormal": _lognormal,
    "uniform": _uniform,
    "equal": _equal,
}

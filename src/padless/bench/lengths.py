"""Lengths of a benchmark's batch: drawn from a distribution, or counted in real text; each names its source."""

from __future__ import annotations

import functools
from collections.abc import Callable

import torch
from torch import Generator, Tensor

from ..demo.data import read_functions, stdlib_files

__all__ = ["LENGTHS", "draw_lengths"]


def draw_lengths(kind: str, batch: int, steps: int, *, seed: int = 0) -> Tensor:
    """`(B,)` int64 lengths from 1 to T, the first of them T, the same for the same seed.

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
    """`rand**1.5 * (T - 1) + 1`: most are short, 40 % of the grid is real; what the targets are stated for."""
    return (torch.rand(batch, generator=generator) ** 1.5 * (steps - 1)).long() + 1


def _uniform(batch: int, steps: int, generator: Generator) -> Tensor:
    """Every length from 1 to T as likely as the next: half of the grid is real."""
    return torch.randint(1, steps + 1, (batch,), generator=generator)


def _lognormal(batch: int, steps: int, generator: Generator) -> Tensor:
    """Log-normal with median T/4 and sigma 0.6, as sentences and utterances nearly are."""
    return (torch.randn(batch, generator=generator) * 0.6).exp().mul(steps / 4).long()


def _equal(batch: int, steps: int, generator: Generator) -> Tensor:
    """All T: nothing is padding, so nothing can be saved but the engine's own overhead."""
    return torch.full((batch,), steps)


def _stdlib(batch: int, steps: int, generator: Generator) -> Tensor:
    """Tokens in the functions of Python's own standard library, the data of `padless demo`: median 43."""
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

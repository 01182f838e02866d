"""Checks that contestants agree, then times them by turns; ratios of medians, and minima beside them."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from .cases import Case

__all__ = ["Timing", "check_equal", "measure", "sgemm_flops_per_second"]


class Timing(NamedTuple):
    """Seconds of one step: CPU time at one thread, wall time at more."""

    median_seconds: float
    minimum_seconds: float


def check_equal(case: Case) -> None:
    """Raise AssertionError where a contestant differs from torch packed by more than rounding explains.

    The bound is `64 * eps * sqrt(K + T) * scale`, with K the terms that one sum takes and scale the
    largest value; weight gradients sum over all rows, so there K is N.
    """
    results = {name: step() for name, step in case.contestants.items()}
    expected = results["torch packed"]
    for name, got in results.items():
        if name == "torch padded":  # a grid, so only what both have: the weights' gradients
            count = len(got) - 2 if case.train else 0
            pairs = list(zip(got[-count:], expected[-count:], strict=True)) if count else []
        else:
            pairs = list(zip(got, expected, strict=True))
        for i, (ours, theirs) in enumerate(pairs):
            terms = case.rows if case.train else 2 * case.shape.width
            _check_close(ours, theirs, terms + case.shape.steps, f"{case.cell} {case.shape}: {name}[{i}]")


def _check_close(got: Tensor, expected: Tensor, terms: int, what: str) -> None:
    bound = 64 * torch.finfo(expected.dtype).eps * terms**0.5 * max(1.0, float(expected.abs().max()))
    difference = float((got - expected).abs().max())
    if not difference <= bound:
        raise AssertionError(f"{what} differs from torch packed by {difference:.3g}, more than {bound:.3g}")


def measure(case: Case, *, repeats: int, budget_seconds: float) -> dict[str, Timing]:
    """Time each contestant `repeats` times by turns, fewer once the budget is spent but never under three."""
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    samples: dict[str, list[float]] = {name: [] for name in case.contestants}
    deadline = time.perf_counter() + budget_seconds
    for done in range(repeats):
        if done >= 3 and time.perf_counter() > deadline:
            break
        for name, step in case.contestants.items():
            started = clock()
            step()
            samples[name].append(clock() - started)
    return {name: Timing(statistics.median(s), min(s)) for name, s in samples.items()}


def sgemm_flops_per_second(size: int = 1024) -> dict[str, float]:
    """What the machine's own large float32 product reaches in each library inside torch, best of ten.

    They differ: on AMD processors MKL keeps to AVX2 where oneDNN uses AVX-512. `"best"` is the yardstick.
    """
    from ..backends._products import linear

    a, b = torch.randn(size, size), torch.randn(size, size)
    work = 2 * size**3
    rates = {"mkl": work / _best(lambda: torch.mm(a, b)), "onednn": work / _best(lambda: linear(a, b))}
    return {**rates, "best": max(rates.values())}


def _best(step: Callable[[], object], repeats: int = 10) -> float:
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    seconds = []
    for _ in range(repeats):
        started = clock()
        step()
        seconds.append(clock() - started)
    return min(seconds)

"""Checks that all implementations agree, then times them in turns, together with a large matrix product."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..backends._products import linear
from ..errors import DisagreementError
from .cases import FLOAT32, REFERENCE, Case, Contestant

__all__ = [
    "SGEMM",
    "Timing",
    "check_contestants",
    "check_equal",
    "clock",
    "measure",
    "sgemm_flops",
    "sgemm_flops_per_second",
    "time_by_turns",
]

SGEMM = "sgemm"
_SGEMM_SIZE = 1024
_WARM_SECONDS = 0.015
_LEAST_SECONDS = 0.02  # of one sample: shorter steps are repeated


class Timing(NamedTuple):
    """Seconds of one step: CPU time with one thread, wall time with more."""

    median_seconds: float
    minimum_seconds: float
    samples: int


def check_equal(case: Case) -> None:
    """Raise DisagreementError if a contestant differs from the reference by more than rounding explains.

    The reference is torch packed, or padless in float32 if others compute in a lower precision.

    Outputs at real rows, final states (except those of the grid, which come after the padding) and all gradients
    are compared.
    """
    check_contestants(
        case.contestants, FLOAT32 if FLOAT32 in case.contestants else REFERENCE,
        where=f"{case.cell} {tuple(case.shape)}", rows=case.rows, width=case.shape.width, steps=case.shape.steps,
        eps=case.eps,
    )  # fmt: skip


def check_contestants(
    contestants: dict[str, Contestant],
    reference: str,
    *,
    where: str,
    rows: int,
    width: int,
    steps: int,
    eps: float = torch.finfo(torch.float32).eps,
) -> None:
    """Raise DisagreementError if one differs from the reference by more than rounding explains.

    The bound is `64 * eps * sqrt(K + T) * scale`, where K is the number of terms of a sum (the larger of N and 2 H for
    gradients, 2 H for outputs and states) and scale the largest value. If eps is over 1e-5, the factor is 2, not 64.
    """
    found = {name: each.results(each.step()) for name, each in contestants.items()}
    expected = found.pop(reference)
    for contestant, results in found.items():
        missing = {"output", *(name for name in expected if name.startswith("grad"))} - results.keys()
        if missing:
            raise DisagreementError(f"{contestant} returned no {', '.join(sorted(missing))}")
        for name, got in ((name, got) for name, got in results.items() if name in expected):
            terms = max(rows, 2 * width) if name.startswith("grad") else 2 * width
            _check_close(got, expected[name], terms + steps, eps, f"{where}: {contestant}: {name}", reference)


def _check_close(got: Tensor, expected: Tensor, terms: int, eps: float, where: str, reference: str) -> None:
    if got.shape != expected.shape:
        raise DisagreementError(f"{where} has shape {tuple(got.shape)}, not {tuple(expected.shape)}")
    bound = (64 if eps < 1e-5 else 2) * eps * terms**0.5 * max(1.0, float(expected.abs().max()))
    difference = float((got - expected).abs().max())
    if not difference <= bound:  # also true for NaN
        raise DisagreementError(
            f"{where} differs from {reference} by {difference:.3g}, more than {bound:.3g}; nothing was timed"
        )


def measure(case: Case, *, repeats: int, budget_seconds: float, library: str) -> dict[str, Timing]:
    """Times of each contestant and, as `SGEMM`, of a product by `library`, which also runs in every round.

    Args:
        case: already checked by `check_equal`.
        repeats: number of rounds; fewer if the budget is spent, but at least three.
        budget_seconds: time limit for this case.
        library: a key of `sgemm_flops_per_second()`; its product takes `2 * 1024**3` FLOPs.
    """
    steps = {SGEMM: _products()[library], **{name: c.step for name, c in case.contestants.items()}}
    return time_by_turns(steps, repeats=repeats, budget_seconds=budget_seconds)


def time_by_turns(
    steps: dict[str, Callable[[], Any]], *, repeats: int, budget_seconds: float
) -> dict[str, Timing]:
    """Times of calls that take turns, so that a slow phase of the machine affects all of them."""
    samples: dict[str, list[float]] = {name: [] for name in steps}
    deadline = time.perf_counter() + budget_seconds
    for done in range(repeats):
        if done >= 3 and time.perf_counter() > deadline:
            break
        for name, step in steps.items():
            samples[name].append(_seconds_a_call(step))
    return {name: Timing(statistics.median(s), min(s), len(s)) for name, s in samples.items()}


def sgemm_flops_per_second() -> dict[str, float]:
    """FLOP/s of a 1024-cubed float32 product in each library inside torch, best of ten.

    They differ: `torch.mm` is MKL, which uses only AVX2 on AMD processors, while oneDNN uses AVX-512.
    """
    return {
        name: sgemm_flops() / time_by_turns({name: step}, repeats=10, budget_seconds=5)[name].minimum_seconds
        for name, step in _products().items()
    }


def sgemm_flops() -> int:
    """FLOPs of the timed product."""
    return 2 * _SGEMM_SIZE**3


def clock() -> Callable[[], float]:
    """CPU time if torch has one thread, since it excludes other processes; otherwise wall time."""
    return time.process_time if torch.get_num_threads() == 1 else time.perf_counter


def _products() -> dict[str, Callable[[], Any]]:
    a, b = torch.randn(_SGEMM_SIZE, _SGEMM_SIZE), torch.randn(_SGEMM_SIZE, _SGEMM_SIZE)
    return {"mkl": lambda: torch.mm(a, b), "onednn": lambda: linear(a, b)}


def _seconds_a_call(step: Callable[[], Any]) -> float:
    """Time of one call, after untimed calls for `_WARM_SECONDS`; a long first call is used as it is.

    The first call finds cold caches, and right after a long matrix product an Intel core runs at a lower clock for
    some milliseconds.
    """
    now = clock()
    started, wall = now(), time.perf_counter()
    step()
    first = now() - started
    if first >= 5 * _LEAST_SECONDS:
        return first
    while time.perf_counter() - wall < _WARM_SECONDS:
        step()
    calls, started = 0, now()
    while True:
        step()
        calls += 1
        spent = now() - started
        if spent >= _LEAST_SECONDS:
            return spent / calls

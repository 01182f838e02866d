"""Times per-sequence operations beside the same arithmetic on dense rows, and beside padding, masking and reducing.

    python benchmarks/ops.py [sequences] [mean length] [width]

Forward and backward of a sum, one thread, CPU time, least of 9 calls in turns. Results are checked equal first.
Columns: ms of padless; of the dense operation on the same N rows; of the padded batch; and padless over dense (at most
2 is the goal).
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

import torch
from torch import Tensor

import padless
from padless import ops


def forward_backward(run: Callable[[Tensor], Tensor], data: Tensor) -> Callable[[], Tensor]:
    def call() -> Tensor:
        leaf = data.detach().requires_grad_()
        run(leaf).sum().backward()
        return leaf.grad  # type: ignore[return-value]

    return call


def least(calls: list[Callable[[], Tensor]], rounds: int = 9) -> list[float]:
    for call in calls:
        until = time.thread_time() + 0.015
        while time.thread_time() < until:
            call()
    best = [float("inf")] * len(calls)
    for _ in range(rounds):
        for i, call in enumerate(calls):
            begin = time.thread_time()
            call()
            best[i] = min(best[i], time.thread_time() - begin)
    return best


def main(count: int = 4096, mean_length: int = 50, width: int = 128) -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    lengths = torch.randint(1, 2 * mean_length, (count,))
    data = torch.randn(int(lengths.sum()), width)
    packed = padless.Packed(data, lengths)
    layout, mask = packed._layout, packed.mask()[:, :, None]
    grid = packed.pad()
    steps, rows = grid.shape[1], len(data)
    square = data[: rows // mean_length * mean_length].view(
        -1, mean_length, width
    )  # the same rows in equal sequences
    of = lambda d: padless.Packed._of(d, layout)  # noqa: E731
    low = torch.finfo(torch.float32).min
    cases: dict[str, tuple[Callable, Callable, Callable]] = {
        "sum": (lambda d: ops.sum(of(d)), lambda d: d.sum(1), lambda g: (g * mask).sum(1)),
        "mean": (
            lambda d: ops.mean(of(d)),
            lambda d: d.mean(1),
            lambda g: (g * mask).sum(1) / lengths[:, None],
        ),
        "max": (lambda d: ops.max(of(d)), lambda d: d.amax(1), lambda g: g.masked_fill(~mask, low).amax(1)),
        "logsumexp": (
            lambda d: ops.logsumexp(of(d)),
            lambda d: d.logsumexp(1),
            lambda g: g.masked_fill(~mask, low).logsumexp(1),
        ),
        "softmax": (
            lambda d: ops.softmax(of(d)).data.square(),
            lambda d: d.softmax(1).square(),
            lambda g: g.masked_fill(~mask, low).softmax(1).square() * mask,
        ),
        "log_softmax": (
            lambda d: ops.log_softmax(of(d)).data.square(),
            lambda d: d.log_softmax(1).square(),
            lambda g: g.masked_fill(~mask, low).log_softmax(1).masked_fill(~mask, 0).square(),
        ),
        "cumsum": (lambda d: ops.cumsum(of(d)).data, lambda d: d.cumsum(1), lambda g: g.cumsum(1) * mask),
        "prod": (lambda d: ops.prod(of(d)), lambda d: d.prod(1), lambda g: g.masked_fill(~mask, 1).prod(1)),
        "reverse": (lambda d: ops.reverse(of(d)).data, lambda d: d.flip(1), lambda g: g.flip(1) * mask),
        "shift": (lambda d: ops.shift(of(d), 1).data, lambda d: d.roll(1, 1), lambda g: g.roll(1, 1) * mask),
        "head": (
            lambda d: ops.head(of(d), 10).data,
            lambda d: d[:, :10].clone(),
            lambda g: (g * mask)[:, :10],
        ),
        "cat": (
            lambda d: ops.cat([of(d), of(d)]).data,
            lambda d: torch.cat([d, d], 1),
            lambda g: torch.cat([g, g], 1) * torch.cat([mask, mask], 1),
        ),
        "last": (
            lambda d: ops.last(of(d)),
            lambda d: d[:, -1],
            lambda g: g[torch.arange(count), lengths - 1],
        ),
        "expand": (
            lambda d: ops.expand(packed, d[:count]).data,
            lambda d: d[:, :1].expand_as(d).clone(),
            lambda g: g[:, :1].expand_as(g) * mask,
        ),
    }
    print(
        f"{count} sequences, {rows} rows of {width}, fill {rows / (count * steps):.2f}, torch {torch.__version__}"
    )
    for name, (ours, dense, padded) in cases.items():
        if name not in ("expand", "reverse", "shift"):
            torch.testing.assert_close(ours(data).sum(), padded(grid).sum(), rtol=1e-3, atol=1e-2)
        calls = [
            forward_backward(ours, data),
            forward_backward(dense, square),
            forward_backward(padded, grid),
        ]
        a, b, c = (1000 * t for t in least(calls))
        print(f"{name:10} padless {a:7.1f}   dense {b:7.1f}   padded {c:7.1f}   padless / dense {a / b:5.2f}")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))

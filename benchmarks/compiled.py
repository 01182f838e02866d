"""A model with a padless layer, compiled against eager: from token ids and lengths to the gradients.

Results are checked equal first; then both sides run in turns, one thread, CPU time, the least of several runs.

    python benchmarks/compiled.py
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

import padless
from padless.bench.cases import SHAPES
from padless.rnn import pack_padded_sequence

RUNS = 7


class Classifier(torch.nn.Module):
    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.embedding = torch.nn.Embedding(1000, hidden)
        self.rnn = padless.nn.LSTM(hidden, hidden, batch_first=True)
        self.head = torch.nn.Linear(hidden, 10)

    def forward(self, ids: Tensor, lengths: Tensor) -> Tensor:
        rows = pack_padded_sequence(self.embedding(ids), lengths, batch_first=True, enforce_sorted=False)
        return self.head(self.rnn(rows)[1][0][-1])


def train(model: Callable[..., Tensor], weights: list[Tensor], *batch: Tensor) -> tuple[Tensor, ...]:
    return torch.autograd.grad(model(*batch).square().sum(), weights)


def infer(model: Callable[..., Tensor], weights: list[Tensor], *batch: Tensor) -> tuple[Tensor, ...]:
    with torch.no_grad():
        return (model(*batch),)


def least_seconds(sides: list[Callable[[], Any]]) -> list[float]:
    """CPU seconds of a call of each side, in turns."""
    found = [float("inf")] * len(sides)
    for _ in range(RUNS):
        for i, side in enumerate(sides):
            side()
            start, calls = time.process_time(), 0
            while time.process_time() - start < 0.2:
                side()
                calls += 1
            found[i] = min(found[i], (time.process_time() - start) / calls)
    return found


def main() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    print(f"{'B,T,H':>12}  {'':>5}  eager ms  compiled ms  compiled / eager")
    for batch, steps, hidden in SHAPES:
        torch.compiler.reset()  # every shape is a model of its own
        model = Classifier(hidden)
        compiled = torch.compile(model, fullgraph=True, dynamic=True)
        weights = list(model.parameters())
        lengths = torch.randint(1, steps + 1, (batch,))
        lengths[0] = steps
        given = torch.randint(0, 1000, (batch, steps)), lengths
        for name, run in (("infer", infer), ("train", train)):
            for got, want in zip(run(compiled, weights, *given), run(model, weights, *given), strict=True):
                torch.testing.assert_close(got, want, rtol=1e-3, atol=1e-4)
            eager, fast = least_seconds(
                [lambda: run(model, weights, *given), lambda: run(compiled, weights, *given)]  # noqa: B023
            )
            shape = f"{batch},{steps},{hidden}"
            print(
                f"{shape:>12}  {name}  {1e3 * eager:8.2f}  {1e3 * fast:11.2f}  {fast / eager:16.2f}",
                flush=True,
            )


if __name__ == "__main__":
    main()

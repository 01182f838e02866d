"""Calls of one or a few steps, padless beside torch: `python benchmarks/steps.py`.

Prints the CPU microseconds of a call, torch / padless and their ratio, the least of nine runs by turns on one
thread. Results are checked equal first.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
from torch.nn.utils.rnn import pack_sequence

import padless

SHAPES = [(1, 1, 64), (8, 1, 128), (64, 1, 256), (1, 1, 512), (8, 5, 128)]  # B, T, I = H


def cpu_microseconds(call: Callable[[], object], repeats: int) -> float:
    start = time.thread_time()
    for _ in range(repeats):
        call()
    return (time.thread_time() - start) / repeats * 1e6


def rows_of(output: object) -> torch.Tensor:
    return output if isinstance(output, torch.Tensor) else output.data  # type: ignore[attr-defined]


def compare(
    cell: str, batch: int, steps: int, width: int, *, trains: bool, packs: bool
) -> tuple[float, float]:
    torch.manual_seed(0)
    theirs = getattr(torch.nn, cell)(width, width)
    ours = getattr(padless.nn, cell)(width, width)
    ours.load_state_dict(theirs.state_dict())
    h = torch.randn(1, batch, width)
    hx = (h, h.clone()) if cell == "LSTM" else h
    x = torch.randn(steps, batch, width)
    x = pack_sequence(list(x.unbind(1))) if packs else x
    torch.testing.assert_close(rows_of(ours(x, hx)[0]), rows_of(theirs(x, hx)[0]), rtol=1e-4, atol=1e-5)

    def train(layer: torch.nn.Module) -> None:
        layer.zero_grad()
        rows_of(layer(x, hx)[0]).sum().backward()

    def infer(layer: torch.nn.Module) -> None:
        with torch.no_grad():
            layer(x, hx)

    call = train if trains else infer
    repeats = max(20, 300 // (1 + batch * steps * width * width // 200_000))
    times = [
        (cpu_microseconds(lambda: call(theirs), repeats), cpu_microseconds(lambda: call(ours), repeats))
        for _ in range(9)
    ]
    return min(t for t, _ in times), min(t for _, t in times)


def main() -> None:
    torch.set_num_threads(1)
    for cell in ("LSTM", "GRU", "RNN"):
        for batch, steps, width in SHAPES:
            parts = []
            for name, trains, packs in (
                ("infer padded", False, False),
                ("infer packed", False, True),
                ("train padded", True, False),
            ):
                theirs, ours = compare(cell, batch, steps, width, trains=trains, packs=packs)
                parts.append(f"{name} {theirs:7.1f} {ours:7.1f} {ours / theirs:5.2f}")
            print(f"{cell:4} {batch:3} {steps} {width:4} | " + " | ".join(parts), flush=True)


if __name__ == "__main__":
    main()

"""Two source trees of padless against each other: `python benchmarks/two_trees.py OLD NEW`, both with kernels built.

Layers on the shapes of `padless bench`, one thread, CPU time. Each tree runs in a process of its own, in turns, warmed
for 15 ms before it is timed. Prints the least of each in milliseconds, and NEW over OLD: of the least, of the medians.
"""

from __future__ import annotations

import math
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

SHAPES = [(64, 100, 128), (64, 200, 256), (32, 200, 512), (256, 50, 64), (8, 100, 256), (1, 200, 256)]
TURNS = 17


def serve() -> None:
    """Times one call for each line `CELL B T H MODE` of standard input."""
    import torch

    import padless

    torch.set_num_threads(1)
    cases = {}
    for line in sys.stdin:
        cell, *shape, mode = line.split()
        key = cell, *shape
        if key not in cases:
            batch, steps, width = map(int, shape)
            torch.manual_seed(0)
            lengths = (torch.rand(batch) ** 1.5 * (steps - 1)).long() + 1
            lengths[0] = steps
            rows = torch.randn(int(lengths.sum()), width, requires_grad=True)
            cases[key] = getattr(padless.nn, cell)(width, width), padless.Packed(rows, lengths)
        print(time_call(*cases[key], mode == "train"), flush=True)


def time_call(layer: Any, packed: Any, trains: bool) -> float:
    """CPU seconds, the least of three."""
    import torch

    def call() -> None:
        layer.zero_grad()
        with torch.set_grad_enabled(trains):
            output = layer(packed)[0].data
        if trains:
            output.sum().backward()

    end = time.perf_counter() + 0.015
    while time.perf_counter() < end:
        call()
    times = []
    for _ in range(3):
        start = time.thread_time()
        call()
        times.append(time.thread_time() - start)
    return min(times)


def start(tree: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, __file__, "--serve"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": str(Path(tree).resolve() / "src")},
    )  # fmt: skip


def ask(server: subprocess.Popen[str], case: str) -> float:
    assert server.stdin is not None and server.stdout is not None
    server.stdin.write(case + "\n")
    server.stdin.flush()
    return float(server.stdout.readline()) * 1e3


def main(old: str, new: str) -> None:
    servers, ratios = [start(old), start(new)], []
    for cell in ("LSTM", "GRU", "RNN"):
        for batch, steps, width in SHAPES:
            for mode in ("train", "infer"):
                times: list[list[float]] = [[], []]
                for turn in range(TURNS):
                    for side in (0, 1) if turn % 2 else (1, 0):
                        times[side].append(ask(servers[side], f"{cell} {batch} {steps} {width} {mode}"))
                ratios.append(statistics.median(times[1]) / statistics.median(times[0]))
                old_least, new_least = map(min, times)
                print(
                    f"{cell:4} {batch:3} {steps:3} {width:3} {mode:5}  old {old_least:8.3f}  new {new_least:8.3f}"
                    f"  least {new_least / old_least:.3f}  median {ratios[-1]:.3f}"
                )
    print(f"geometric mean of the medians: {math.exp(statistics.fmean(map(math.log, ratios))):.3f}")


if __name__ == "__main__":
    serve() if sys.argv[1:] == ["--serve"] else main(*sys.argv[1:])

"""How cost and memory grow: time a row at T=500 and at many more, ragged batches, peak memory of a training step.

    python benchmarks/scaling.py [--cell LSTM GRU RNN] [--json FILE]

Padless by its fastest backend, torch packed beside it; one thread, CPU time, in turns, medians. Memory is the growth of
the resident set's high-water mark (VmHWM, Linux) over one training step, each in a process of its own.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch
from torch.nn.utils.rnn import PackedSequence, pack_sequence

import padless.nn
from padless import backends
from padless.backends import recompute
from padless.bench.facts import facts
from padless.bench.lengths import draw_lengths
from padless.bench.timing import time_by_turns

WHO = {"padless": padless.nn, "torch packed": torch.nn}
RECOMPUTING = "padless recomputing"  # its native backend, gates computed again in backward instead of saved
# Its cost grows with the square of T: at T=8000 one of its steps takes minutes.
STEPS = {"padless": (500, 8000), "torch packed": (500, 2000)}


def training_step(module: Any, cell: str, lengths: torch.Tensor, width: int):
    torch.manual_seed(0)
    layer = getattr(module, cell)(width, width)
    packed = pack_sequence([torch.randn(int(n), width) for n in lengths], enforce_sorted=False)
    gradient = torch.randn(packed.data.shape)

    def step() -> PackedSequence:
        layer.zero_grad()
        output, _ = layer(packed)
        output.data.backward(gradient)
        return output

    return step


def row_seconds(cell: str, who: str, lengths: torch.Tensor, width: int) -> float:
    """CPU seconds a row of a training step; the fastest of some."""
    step = training_step(WHO[who], cell, lengths, width)
    timing = time_by_turns({who: step}, repeats=5, budget_seconds=5)[who]
    return timing.minimum_seconds / int(lengths.sum())


def linearity(cell: str) -> dict[str, Any]:
    """8 sequences of at most T steps, H=128: the work of a row is the same at any T."""
    found = {}
    for who, (low, high) in STEPS.items():
        short, long = (row_seconds(cell, who, draw_lengths("short", 8, steps), 128) for steps in (low, high))
        found[who] = {"steps": [low, high], "seconds_a_row": [short, long], "ratio": long / short}
    return found


def ragged(cell: str) -> dict[str, Any]:
    """One row of 256 and 63 of 10 (886 rows), beside the 16,384 cells of 64 times 256, H=256."""
    lengths = torch.tensor([256] + [10] * 63)
    full = torch.full((64,), 256)
    found = {}
    for who in WHO:
        rows = int(lengths.sum()), int(full.sum())
        seconds = [
            row_seconds(cell, who, n, 256) * count for n, count in zip((lengths, full), rows, strict=True)
        ]
        found[who] = {
            "seconds_ragged": seconds[0],
            "seconds_full": seconds[1],
            "cost_of_full": seconds[0] / seconds[1],
            "rows_of_full": rows[0] / rows[1],
        }
    return found


def memory(cell: str) -> dict[str, Any]:
    """Peak memory of a training step at (64, 400, 256), fill 0.4, and how much of torch packed's that is."""
    found = {}
    for who in (*WHO, RECOMPUTING):
        command = [sys.executable, __file__, "--cell", cell, "--memory-of", who]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        found[who] = json.loads(done.stdout)
    for numbers in found.values():
        numbers["of_torch_packed"] = numbers["step_bytes"] / found["torch packed"]["step_bytes"]
    return found


def measure_memory(cell: str, who: str) -> dict[str, int]:
    """Bytes in this process: what the step added at its highest, and the whole process at its highest."""
    recompute(who == RECOMPUTING)
    module = WHO.get(who, padless.nn)
    training_step(module, cell, torch.tensor([3, 2]), 256)()  # libraries and threads have their memory now
    step = training_step(module, cell, draw_lengths("short", 64, 400), 256)
    Path("/proc/self/clear_refs").write_text("5")  # VmHWM starts again from here
    before = _status("VmRSS")
    output = step()
    peak = _status("VmHWM")
    del output
    return {"step_bytes": peak - before, "peak_bytes": peak}


def _status(name: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(name + ":"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"/proc/self/status has no {name}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cell", nargs="+", default=["LSTM", "GRU", "RNN"])
    parser.add_argument("--json", type=Path)
    parser.add_argument("--memory-of", choices=(*WHO, RECOMPUTING), help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.memory_of:
        print(json.dumps(measure_memory(options.cell[0], options.memory_of)))
        return
    report: dict[str, Any] = {**facts(threads=1), "results": {}}
    print(f"{report['machine']}, backend {backends.active()}, one thread")
    for cell in options.cell:
        found = {"linearity": linearity(cell), "ragged": ragged(cell), "memory": memory(cell)}
        report["results"][cell] = found
        for who in WHO:
            line, rag = found["linearity"][who], found["ragged"][who]
            print(
                f"{cell:4} {who:19}  us a row: {1e6 * line['seconds_a_row'][0]:6.2f} at T={line['steps'][0]}, "
                f"{1e6 * line['seconds_a_row'][1]:6.2f} at T={line['steps'][1]} ({line['ratio']:.2f} times); "
                f"ragged: {100 * rag['cost_of_full']:.1f} % of full's time, "
                f"{100 * rag['rows_of_full']:.1f} % of its rows"
            )
        for who, mem in found["memory"].items():
            print(
                f"{cell:4} {who:19}  {mem['step_bytes'] / 2**20:.0f} MiB a step, "
                f"{mem['of_torch_packed']:.2f} of torch packed's",
                flush=True,
            )
    if options.json:
        options.json.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()

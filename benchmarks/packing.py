"""padless.rnn against torch.nn.utils.rnn: checked bit-equal, then timed in turns, in CPU time of one thread."""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils import rnn as theirs

from padless import rnn as ours
from padless.bench.facts import facts

Call = Callable[[ModuleType], Any]
SHAPES = [(8, 100), (64, 200), (256, 50), (32, 2000)]
WIDTHS = [1, 64, 256]  # 1: token ids, int64, without gradients


def problems(sequences: list[Tensor]) -> dict[str, Call]:
    """Every twin as a call on either module; leaves are shared, so gradients can be compared."""
    packed = theirs.pack_sequence([s.detach() for s in sequences], enforce_sorted=False)
    padded = theirs.pad_sequence([s.detach() for s in sequences], batch_first=True)
    lengths = torch.tensor([len(s) for s in sequences])
    if sequences[0].requires_grad:
        padded.requires_grad_()
        packed = packed._replace(data=packed.data.detach().requires_grad_())
    return {
        "pack_sequence": lambda m: m.pack_sequence(sequences, enforce_sorted=False),
        "pad_packed_sequence": lambda m: m.pad_packed_sequence(packed, batch_first=True),
        "pad_sequence": lambda m: m.pad_sequence(sequences, batch_first=True),
        "pack_padded_sequence": lambda m: m.pack_padded_sequence(padded, lengths, True, False),
        "unpad_sequence": lambda m: m.unpad_sequence(padded, lengths, batch_first=True),
        "unpack_sequence": lambda m: m.unpack_sequence(packed),
    }


def tensors(result: Any) -> list[Tensor]:
    if result is None:
        return []
    return [result] if isinstance(result, Tensor) else [t for part in result for t in tensors(part)]


def backward(result: Any, grads: list[Tensor]) -> None:
    torch.autograd.backward([t for t in tensors(result) if t.requires_grad], grads)


def gradients(call: Call, module: ModuleType, leaves: list[Tensor], grads: list[Tensor]) -> list[Tensor]:
    backward(call(module), grads)
    found = [leaf.grad for leaf in leaves if leaf.grad is not None]
    for leaf in leaves:
        leaf.grad = None
    return found


def microseconds(work: dict[str, Callable[[], None]], seconds: float) -> dict[str, list[float]]:
    """CPU times of both sides in turns, for about `seconds` of wall time and at least 5 rounds."""
    times: dict[str, list[float]] = {side: [] for side in work}
    end = time.monotonic() + seconds
    while len(times["torch"]) < 5 or time.monotonic() < end:
        for side, run in work.items():
            begin = time.process_time_ns()
            run()
            times[side].append((time.process_time_ns() - begin) / 1e3)
    return times


def measure(batch: int, steps: int, width: int, seconds: float) -> list[dict[str, Any]]:
    generator = torch.Generator().manual_seed(batch + steps)
    lengths = ((torch.rand(batch, generator=generator) ** 1.5 * (steps - 1)).int() + 1).tolist()
    if width == 1:
        sequences = [torch.randint(1000, (n,), generator=generator) for n in lengths]
    else:
        sequences = [torch.randn(n, width, generator=generator).requires_grad_() for n in lengths]
    rows = []
    for name, call in problems(sequences).items():
        results = [tensors(call(m)) for m in (ours, theirs)]
        if not all(torch.equal(a, b) for a, b in zip(*results, strict=True)):
            raise SystemExit(f"{name} is not equal to torch's: not timed")
        modes: dict[str, dict[str, Callable[[], None]]] = {}

        def forward(module: ModuleType, call: Call = call) -> None:
            with torch.no_grad():
                call(module)

        modes["forward"] = {"padless": lambda f=forward: f(ours), "torch": lambda f=forward: f(theirs)}
        if width > 1:
            grads = [torch.randn_like(t) for t in results[1] if t.requires_grad]
            leaves = [t for cell in call.__closure__ or () for t in tensors_in(cell.cell_contents)]
            found = [gradients(call, m, leaves, grads) for m in (ours, theirs)]
            if not found[0] or not all(torch.equal(a, b) for a, b in zip(*found, strict=True)):
                raise SystemExit(f"gradients of {name} are not equal to torch's: not timed")

            def both(module: ModuleType, call: Call = call, leaves: Any = leaves, grads: Any = grads) -> None:
                gradients(call, module, leaves, grads)

            modes["with backward"] = {"padless": lambda f=both: f(ours), "torch": lambda f=both: f(theirs)}
        for mode, work in modes.items():
            times = microseconds(work, seconds)
            least = {side: min(found) for side, found in times.items()}
            middle = {side: statistics.median(found) for side, found in times.items()}
            rows.append(
                {
                    "function": name,
                    "mode": mode,
                    "B": batch,
                    "T": steps,
                    "I": width,
                    "padless_microseconds": round(least["padless"], 1),
                    "torch_microseconds": round(least["torch"], 1),
                    "ratio_of_minima": round(least["torch"] / least["padless"], 2),
                    "ratio_of_medians": round(middle["torch"] / middle["padless"], 2),
                }
            )
    return rows


def tensors_in(value: Any) -> list[Tensor]:
    """The tensors among what a call closes over that take gradients."""
    return [t for t in tensors(value) if t.requires_grad] if isinstance(value, (Tensor, list, tuple)) else []


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the numbers to FILE as JSON")
    parser.add_argument("--quick", action="store_true", help="two shapes, a tenth of the time")
    options = parser.parse_args()
    torch.set_num_threads(1)
    seconds = 0.05 if options.quick else 0.3
    rows = []
    print(
        f"{'function':22}{'mode':15}{'B':>5}{'T':>6}{'I':>5}{'us':>10}{'torch us':>10}{'min':>8}{'median':>8}"
    )
    for batch, steps in SHAPES[:2] if options.quick else SHAPES:
        for width in WIDTHS:
            for row in measure(batch, steps, width, seconds):
                rows.append(row)
                print("{:22}{:15}{:5}{:6}{:5}{:10}{:10}{:7}x{:7}x".format(*row.values()), flush=True)
    if options.json:
        options.json.write_text(json.dumps({**facts(1), "results": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
